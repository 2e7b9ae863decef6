"""Batches of one or several views per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmseg.models import SegDataPreProcessor
from mmseg.utils import SampleList, stack_batch
from torch import Tensor, nn

from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs, FrozenItem
from omh_mmseg.utils.checks import FINITE, POSITIVE, SIZE, options_of, ranges
from omh_mmseg.utils.precision import widened

PADDINGS = ('size', 'size_divisor')


@MODELS.register_module()
class ViewsDataPreprocessor(SegDataPreProcessor):
    """mmseg's preprocessor for images that come in one view or in several named ones.

    ``inputs`` is mmseg's list of tensors (3, H, W), or a dict of such lists, one per view. The result has ``inputs`` as
    a tensor (B, 3, H, W), or as a dict of them. All views get the same normalisation. Labels belong to the first view
    and are padded with it; samples without labels are fine.

    Views of `FrozenItem`, from a feature cache, become `FrozenInputs` in place of tensors.

    Args:
        mean: Per channel, in the units of the input (0..255).
        std: Per channel.
        size: Fixed size (H, W) to pad to in training.
        size_divisor: Pad to a multiple of this in training. Defaults to 1 (pad to the largest image of the batch) where
            ``size`` is not given either.
        **kwargs: As for :class:`mmseg.models.SegDataPreProcessor`.
    """

    @ranges(mean=FINITE, std=POSITIVE, size=SIZE, size_divisor=SIZE)
    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: tuple[int, int] | None = None,
        size_divisor: int | None = None,
        **kwargs: Any,
    ) -> None:
        if size is None and size_divisor is None:
            size_divisor = 1
        paddings = options_of({name: 'int | Sequence[int] | None' for name in PADDINGS}, dict.fromkeys(PADDINGS, SIZE))
        for name, value in (kwargs.get('test_cfg') or {}).items():
            if name not in paddings:
                raise ValueError(f'data_preprocessor.test_cfg has no {name}; it takes {" and ".join(PADDINGS)}')
            paddings[name].check(f'data_preprocessor.test_cfg.{name}', value)
        super().__init__(mean=mean, std=std, size=size, size_divisor=size_divisor, **kwargs)

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Move to the device, normalise, pad and stack.

        Args:
            data: ``inputs`` and, except in bare forward passes, ``data_samples``.
            training: Pad images and labels as in training (mmseg's benchmark does this on test data, too).

        Returns:
            ``dict(inputs=..., data_samples=...)``.

        Raises:
            ValueError: Images of different sizes outside training, cached ones in a batch that pads them further, views
                of different batch sizes, or no images.
        """
        data = self.cast_data(data)
        inputs, samples = data['inputs'], data.get('data_samples')
        if not isinstance(inputs, Mapping):
            stacked, samples = self._view(inputs, samples, training)
            if training and self.batch_augments is not None:
                stacked, samples = self.batch_augments(stacked, samples)
            return dict(inputs=stacked, data_samples=samples)
        lengths = {name: len(view) for name, view in inputs.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f'the views must have equally many images, got {lengths}')
        views: dict[str, Tensor | FrozenInputs] = {}
        for position, (name, view) in enumerate(inputs.items()):
            labelled = samples if position == 0 else None
            views[name], labelled = self._view(view, labelled, training)
            samples = labelled if position == 0 else samples
        return dict(inputs=views, data_samples=samples)

    def to_bgr_bytes(self: SegDataPreProcessor, image: Tensor) -> Tensor:
        """Bytes of a normalised image, as the hosts' code makes them for its CRF.

        They take it back from [0, 1], times 255, and truncate, which in float32 lowers about a third of all values by
        one, and moves the CRF at one pixel in a thousand. Which third depends on every rounding on the way, so that the
        way is gone again here, from the exact values.

        Args:
            image: (3, H, W), as `forward` normalised it.

        Returns:
            uint8 (3, H, W) in BGR.

        Source: docs/methods/evaluation.md 6.5.
        """
        if self._enable_normalize:
            # Rounded to the decimals of 0.485, ...: 57.12 / 255 is the neighbour of 0.224 in float32.
            mean, std = ((value.cpu().double() / 255).round(decimals=6).to(image) for value in (self.mean, self.std))
            exact = (image * self.std + self.mean).round().clamp(0, 255)
            image = ((exact / 255 - mean) / std * std + mean) * 255
        else:
            image = image.round()
        image = image.clamp(0, 255).byte()
        return image.flip(0) if self._channel_conversion else image

    def _view(
        self, view: Sequence[Tensor] | Sequence[FrozenItem], samples: SampleList | None, training: bool
    ) -> tuple[Tensor | FrozenInputs, SampleList | None]:
        items = [item for item in view if isinstance(item, FrozenItem)]
        if items:
            return self._frozen(items, samples, training)
        return self._stack(self._normalised([item for item in view if isinstance(item, Tensor)]), samples, training)

    def _frozen(
        self, items: list[FrozenItem], samples: SampleList | None, training: bool
    ) -> tuple[FrozenInputs, SampleList | None]:
        # The padding of samples is that of the images, for which pictures of one channel stand.
        blanks = [torch.zeros((1, 1, 1), dtype=torch.uint8).expand(1, *item.size) for item in items]
        stacked, samples = self._stack(blanks, samples, training)
        size = (stacked.shape[-2], stacked.shape[-1])
        for blank in {tuple(blank.shape): blank for blank in blanks}.values():
            alone = tuple(self._stack([blank], None, training)[0].shape[-2:])
            if alone != size:
                raise ValueError(
                    f'cached features are of images padded on their own, and one of {alone} pixels is in a batch '
                    f'padded to {size}; crop to one size in the pipeline, or use batch_size=1 or no feature cache'
                )

        def together(name: str) -> Tensor | None:
            values = [item.extras.get(name, getattr(item, name, None)) for item in items]
            present = [value for value in values if isinstance(value, Tensor)]
            if len(present) < len(values):
                return None
            batch = torch.stack(present).to(self.device, non_blocking=self._non_blocking)
            return widened(batch)

        features = together('features')
        assert features is not None
        images = [item.image.to(self.device) for item in items if item.image is not None]
        whole = self._stack(self._normalised(images), None, training)[0] if images else None
        extras = {name: value for name in items[0].extras if (value := together(name)) is not None}
        return FrozenInputs(features, size, extras, together('mirrored'), together('view'), whole), samples

    def _normalised(self, images: Sequence[Tensor]) -> list[Tensor]:
        if len(images) == 0:
            raise ValueError('the batch holds no images')
        if self._channel_conversion and images[0].size(0) == 3:
            images = [image[[2, 1, 0]] for image in images]
        floats = [image.float() for image in images]
        return [(image - self.mean) / self.std for image in floats] if self._enable_normalize else floats

    def _stack(
        self, images: list[Tensor], samples: SampleList | None, training: bool
    ) -> tuple[Tensor, SampleList | None]:
        padding = dict(pad_val=self.pad_val, seg_pad_val=self.seg_pad_val)
        if training:
            stacked, padded = stack_batch(images, samples, self.size, self.size_divisor, **padding)
            for sample in samples or []:
                if sample.get('pad_shape') is None:
                    sample.set_metainfo(dict(pad_shape=tuple(stacked.shape[-2:])))
            return stacked, padded if samples is not None else None
        sizes = sorted({tuple(image.shape[1:]) for image in images})
        if len(sizes) > 1:
            raise ValueError(
                f'the images of a batch must have one size outside training, got {sizes[:3]}; use batch_size=1 or crop '
                'them to one size in the pipeline'
            )
        if not self.test_cfg:
            return torch.stack(images), samples
        stacked, paddings = stack_batch(
            images, None, self.test_cfg.get('size'), self.test_cfg.get('size_divisor'), **padding
        )
        for sample, info in zip(samples or [], paddings, strict=False):
            sample.set_metainfo(info)
        return stacked, samples


def bgr_bytes_by(preprocessor: nn.Module) -> Callable[[Tensor], Tensor]:
    """`ViewsDataPreprocessor.to_bgr_bytes` of a preprocessor: the method of that name, or the same for mmseg's own.

    Raises:
        ValueError: The preprocessor is another, and has no such method.
    """
    to_bgr_bytes = getattr(preprocessor, 'to_bgr_bytes', None)
    if to_bgr_bytes is not None:
        return to_bgr_bytes
    if isinstance(preprocessor, SegDataPreProcessor):
        return partial(ViewsDataPreprocessor.to_bgr_bytes, preprocessor)
    raise ValueError(
        f'a CRF needs the bytes of an image, and {type(preprocessor).__name__} cannot give them back. Set '
        "model.data_preprocessor.type='ViewsDataPreprocessor' or mmseg's 'SegDataPreProcessor', give yours a method "
        'to_bgr_bytes, or set model.test_cfg.crf=None.'
    )


def preprocessing(preprocessor: Any, training: bool) -> dict[str, Any]:
    """Normalisation and padding of images; paddings that come to the same read the same."""
    holder = preprocessor if training else getattr(preprocessor, 'test_cfg', None) or {}
    size, divisor = (_option(holder, name) for name in ('size', 'size_divisor'))
    pads = size is not None or (divisor or 1) > 1
    padding = dict(size=None if size is None else list(size), divisor=divisor or 1)
    normalises = bool(getattr(preprocessor, '_enable_normalize', False))
    return dict(
        mean=preprocessor.mean.flatten().tolist() if normalises else None,
        std=preprocessor.std.flatten().tolist() if normalises else None,
        swaps_channels=bool(getattr(preprocessor, '_channel_conversion', False)),
        padding=padding | dict(image=preprocessor.pad_val, label=preprocessor.seg_pad_val) if pads else None,
    )


def _option(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
