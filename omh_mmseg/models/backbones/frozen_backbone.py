"""One adapter that freezes any registered backbone and says what it offers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, PretrainedInit
from torch import Tensor, nn

from omh_mmseg.models.backbones.checkpoint import load_backbone_weights
from omh_mmseg.models.backbones.last_block import (
    attention_maps,
    caught_projection,
    key_map,
    patch_map,
    plain_attention,
)
from omh_mmseg.models.backbones.position_embedding import dino_positions, require_position_embedding
from omh_mmseg.models.backbones.reflection import inside, reflected
from omh_mmseg.models.backbones.taps import BackboneTaps
from omh_mmseg.models.backbones.token_grid import patch_size, token_grid, token_layout
from omh_mmseg.models.backbones.wrapped import build_wrapped, described_outputs, is_convolutional
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import FINITE, SIZE, ranges
from omh_mmseg.utils.precision import widened

DRY_RUN_SIZE = 224
POSITION_INTERPOLATIONS = (None, 'size', 'dino')
FEATURES = ('tokens', 'keys')
ATTENTIONS = (None, 'mean', 'heads')
INPUT_FITS = ('error', 'resize')
PRECISIONS = (None, 'float32', 'bfloat16', 'float16')
TIMM_CHANNELS_LAST = 'NHWC'
RANDOM_WEIGHTS_SEED = 0
PART_PIXELS = 2**17
"""Of the images that go through a backbone together on a processor."""


@MODELS.register_module()
class FrozenBackbone(BaseModule):
    """Frozen feature map of any backbone in the registries of mmseg, mmpretrain and (through them) timm.

    The wrapped backbone stays in eval mode and without gradient after any ``train()`` of a parent. Several of its
    maps can be selected; they are resized bilinearly to the finest of them and concatenated.

    Args:
        backbone: Config of the wrapped backbone, e.g. ``dict(type='mmpretrain.ResNet', depth=50, ...)``. It must
            return feature maps (B, C, h, w), alone or in a sequence; of a vision transformer of mmpretrain or timm,
            token sequences (B, e + n, C) will do.
        checkpoint: Weights: a local path, a URL, or ``omh_mmseg://NAME`` for those shipped with the library. None
            leaves the wrapped backbone as its own ``init_cfg`` makes it; weights that it draws at random are the same
            in every process, so that a neighbour index and features on disk belong to them.
        key_converter: Name of the layout to convert from, see `load_backbone_weights`; None if the keys fit.
        out_indices: Which of the returned maps to use, as indices of the sequence; with ``feature='keys'``, the numbers
            of the blocks whose keys are taken, one after the other along the channels.
        out_channels: C of the result; found by a dry run if None.
        stride: Input pixels per position; found by a dry run if None.
        position_interpolation: How a vision transformer's positional embedding is resized to images of another size
            than ``img_size`` of its config: ``'dino'`` by DINO's rule, ``'size'`` or None by the backbone's own.
            With ``'dino'``, ``img_size`` must be the size of the pretraining.
        feature: What the feature map is: ``'tokens'`` the backbone's own output, ``'keys'`` the keys of its last block
            ("feat" and "KK" of docs/methods/features.md 1.2), or of those of ``out_indices``.
        input_fit: What becomes of images whose sides are no multiples of ``size_multiple``: ``'error'``, or
            ``'resize'`` them bilinearly to the nearest multiples. Nothing is padded here, and the features then belong
            to the whole image all the same.
        precision: What the wrapped backbone computes in, whatever the heads do: ``'bfloat16'`` or ``'float16'`` under
            an autocast of its own, ``'float32'`` without any. The weights stay as they are, and features, keys and
            attention come out in float32. None: as the caller has it (``--amp`` or not), whose dtype comes out.
        channels_last: Whether images and convolutions are kept in memory with the channels last. None does so where it
            pays, in convolutional nets: those with most of their weights in convolutions.
        reflect_padding: Rows of positions, of ``size_multiple`` pixels each, that images are enlarged by on each side,
            mirrored, and whose part of the maps is cut off again. Clusters that live on the border of the image vanish
            where the backbone's own padding makes them. A transformer's positions are then those of the larger image,
            and attention is that of the tokens inside.
        allow_left_over: Patterns of keys in the checkpoint that may stay unused, see `load_backbone_weights`.
        allow_missing: Patterns of parameters that the checkpoint may lack, see `load_backbone_weights`.
        init_cfg: See mmengine.

    Attributes:
        out_channels: C of the result.
        stride: Input pixels per position.
        size_multiple: What height and width of the images must be multiples of: the patch, or the stride of the
            coarsest map in use.
        channels_last: Whether the channels are kept last in memory.

    Raises:
        ValueError: If the type is not registered or refuses its options, the backbone returns no feature map at
            ``out_indices``, or it lacks what ``position_interpolation`` or ``feature`` want of it.
        ModuleNotFoundError: For a model of timm without that library.

    Source: docs/methods/features.md 1.2, 1.3, 1.5.
    """

    @ranges(out_indices=FINITE, out_channels=SIZE, stride='[1, 4096]', reflect_padding='[0, 64]')
    def __init__(
        self,
        backbone: dict[str, Any],
        checkpoint: str | None = None,
        key_converter: str | None = None,
        out_indices: int | Sequence[int] = -1,
        out_channels: int | None = None,
        stride: int | None = None,
        position_interpolation: str | None = None,
        feature: str = 'tokens',
        input_fit: str = 'error',
        precision: str | None = None,
        channels_last: bool | None = None,
        reflect_padding: int = 0,
        allow_left_over: Sequence[str] = (),
        allow_missing: Sequence[str] = (),
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.checkpoint = checkpoint
        self.key_converter = key_converter
        self.out_indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        if not self.out_indices:
            raise ValueError("out_indices is empty; name at least one of the backbone's maps, e.g. -1 for the last.")
        _check_choice('position_interpolation', position_interpolation, POSITION_INTERPOLATIONS)
        _check_choice('feature', feature, FEATURES)
        _check_choice('input_fit', input_fit, INPUT_FITS)
        _check_choice('precision', precision, PRECISIONS)
        self.input_fit = input_fit
        self.precision = precision
        self.reflect_padding = reflect_padding
        self.allow_left_over, self.allow_missing = tuple(allow_left_over), tuple(allow_missing)
        self.position_interpolation = position_interpolation
        self.feature = feature
        self._backbone_config = copy.deepcopy(backbone)
        self.backbone = build_wrapped(backbone)
        self.channels_last = is_convolutional(self.backbone) if channels_last is None else channels_last
        if self.channels_last:
            self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if position_interpolation == 'dino':
            require_position_embedding(self.backbone)
        if feature == 'keys':
            for block in self.out_indices:
                self._attention("feature='keys'", "Use feature='tokens'.", block)
        self.train(self.training)
        layout = token_layout(self.backbone)
        multiple = None if layout is None else patch_size(layout.patch_embed)
        if out_channels is None or stride is None:
            dry_channels, dry_stride, coarsest = self._dry_run()
            out_channels, stride = out_channels or dry_channels, stride or dry_stride
            multiple = multiple or coarsest
        self.out_channels = out_channels
        self.stride = stride
        self.size_multiple = multiple or stride

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Set the mode of the adapter; the wrapped backbone always stays frozen in eval mode."""
        super().train(mode)
        # Some backbones thaw stages in their own train(), and some return None from eval(): no chaining.
        self.backbone.eval()
        self.backbone.requires_grad_(False)
        return self

    def init_weights(self) -> None:
        """Load ``checkpoint``, or without one initialise the wrapped backbone as its ``init_cfg`` says.

        Random weights are drawn anew, from a seed of their own.

        Raises:
            FileNotFoundError: If the checkpoint is absent.
            ValueError: If it does not fit the backbone.
        """
        if self.is_init:
            return
        if self.checkpoint is not None:
            # Strict loading leaves nothing for the backbone's own initialisation to do.
            load_backbone_weights(
                self.backbone,
                self.checkpoint,
                self.key_converter,
                self.position_interpolation != 'dino',
                self.allow_left_over,
                self.allow_missing,
            )
            self._is_init = True
            return
        # timm's own weights are there as soon as the model is built.
        if getattr(self.backbone, 'is_init', False) or any(map(_reads_weights, self.modules())):
            super().init_weights()
            return
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(RANDOM_WEIGHTS_SEED)
            self.backbone.load_state_dict(build_wrapped(self._backbone_config).state_dict())
            super().init_weights()
        MMLogger.get_current_instance().warning(
            'The frozen backbone has random weights, the same in every process: neither model.backbone.checkpoint nor '
            'a pretrained init_cfg is set.'
        )

    @property
    def has_attention(self) -> bool:
        """Whether `taps` can give the last block's attention, and with it the keys."""
        return plain_attention(self.backbone) is not None

    has_keys = has_attention

    @property
    def num_extra_tokens(self) -> int:
        """Tokens before those of the patches in the attention: 1 with CLS alone, 0 for backbones without tokens."""
        layout = token_layout(self.backbone)
        return 0 if layout is None else layout.extra

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w) of normalised images (B, 3, H, W).

        Raises:
            ValueError: If H or W is no multiple of ``size_multiple``, with ``input_fit='error'``.
        """
        return self.taps(images, keys=False).features

    @torch.no_grad()
    def taps(
        self, images: Tensor, keys: bool = True, attention: str | None = None, attended: int | None = None
    ) -> BackboneTaps:
        """Features and, of the last block, keys and attention, from one pass through the backbone.

        The attention takes memory: of 64 images of 785 tokens and 6 heads, 0.95 GB, and 1.9 GB while it is made. Where
        hosts want its mean over the heads, ``'mean'`` makes it head by head: 0.16 GB, and 0.54 GB while it is made.

        Args:
            images: Normalised, (B, 3, H, W).
            keys: Whether to return the keys.
            attention: ``'heads'`` for the attention of each head, ``'mean'`` for their mean, None for neither.
            attended: Of how many of the images, the first ones, the attention is wanted; None for all.

        Raises:
            ValueError: On another ``attention``, if the backbone does not have what is asked for, or on images of a
                size that does not fit, see ``input_fit`` and ``reflect_padding``.

        Source: docs/methods/features.md 1.2, docs/methods/hp.md 3B.6.
        """
        _check_choice('attention', attention, ATTENTIONS)
        images = self._fitted(images)
        frame = self.reflect_padding * self.size_multiple
        if frame:
            images = reflected(images, frame)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        taps = self._taps_in_precision(images, keys, attention, attended)
        taps = inside(taps, images, frame, token_layout(self.backbone)) if frame else taps
        return taps._replace(features=taps.features.contiguous())  # as from a cache: other layouts round otherwise

    def _taps_in_precision(
        self, images: Tensor, keys: bool, attention: str | None, attended: int | None
    ) -> BackboneTaps:
        if self.precision is None:
            return self._in_parts(images, keys, attention, attended)
        dtype = None if self.precision == 'float32' else getattr(torch, self.precision)
        with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
            taps = self._in_parts(images, keys, attention, attended)
        wide_keys, wide_attention = (None if item is None else widened(item) for item in taps[1:])
        return BackboneTaps(widened(taps.features), wide_keys, wide_attention)

    def _in_parts(
        self, images: Tensor, keys: bool, attention: str | None, attended: int | None
    ) -> BackboneTaps:
        """On a processor a few images at a time: activations of many do not fit its caches."""
        count = max(1, PART_PIXELS // images.shape[-2:].numel())
        if images.device.type != 'cpu' or len(images) <= count:
            return self._taps(images, keys, attention, attended)
        features, key_maps, maps = zip(*(
            self._taps(part, keys, attention, None if attended is None else max(0, attended - number * count))
            for number, part in enumerate(images.split(count))
        ))
        joined = (None if items[0] is None else torch.cat(items) for items in (key_maps, maps))
        return BackboneTaps(torch.cat(features), *joined)

    def _taps(
        self, images: Tensor, keys: bool, attention: str | None, attended: int | None = None
    ) -> BackboneTaps:
        if not (keys or attention or self.feature == 'keys'):
            return BackboneTaps(self._fuse(self._run(images), images), None, None)
        asked = f'attention={attention!r}' if attention else 'keys=True'
        blocks = [*([-1] if keys or attention else []), *(self.out_indices if self.feature == 'keys' else [])]
        modules = {block: self._attention(asked, 'Choose affinity from features.', block) for block in blocks}
        with ExitStack() as stack:
            caught = {block: stack.enter_context(caught_projection(module)) for block, module in modules.items()}
            outputs = self._run(images)
        projected = {block: projection for block, (projection,) in caught.items()}
        key_maps = {block: key_map(projection, self.backbone, images) for block, projection in projected.items()}
        maps = None
        if attention is not None:
            maps = attention_maps(projected[-1][:attended], modules[-1].num_heads, attention == 'mean')
        if self.feature == 'tokens':
            features = self._fuse(outputs, images)
        elif len(self.out_indices) == 1:
            features = key_maps[self.out_indices[0]]
        else:
            features = torch.cat([key_maps[block] for block in self.out_indices], dim=1)
        return BackboneTaps(features, key_maps[-1] if keys else None, maps)

    def _run(self, images: Tensor) -> Any:
        dino = self.position_interpolation == 'dino'
        with dino_positions(self.backbone, images) if dino else nullcontext():
            return self.backbone(images)

    def _fitted(self, images: Tensor) -> Tensor:
        """The images, or resized ones, whose sides are multiples of ``size_multiple``."""
        sides, multiple = images.shape[-2:], self.size_multiple
        if all(side % multiple == 0 for side in sides):
            return images
        if self.input_fit == 'resize':
            return _resize(images, torch.Size(max(round(side / multiple), 1) * multiple for side in sides))
        raise ValueError(
            f'Images of {sides[0]}x{sides[1]} pixels do not fit {type(self.backbone).__name__}, whose sides must be '
            f'multiples of {multiple}. Crop to multiples in the pipelines; or pad, with size_divisor={multiple} in '
            f"model.data_preprocessor and its test_cfg; or resize, with model.backbone.input_fit='resize'."
        )

    def _attention(self, option: str, remedy: str, block: int) -> Any:
        attention = plain_attention(self.backbone, block)
        if attention is None:
            name = type(self.backbone).__name__
            with torch.no_grad():
                offered = described_outputs(self._run(torch.zeros(1, 3, DRY_RUN_SIZE, DRY_RUN_SIZE)))
            raise ValueError(
                f'{option} needs a backbone whose last block has plain multi-head attention, such as '
                f'mmpretrain.VisionTransformer; {name} has none. {remedy} What {name} offers: {offered}.'
            )
        return attention

    def _fuse(self, outputs: Tensor | Sequence[Tensor], images: Tensor) -> Tensor:
        maps = self._select(outputs, images)
        if len(maps) == 1:
            return maps[0]
        size = max((item.shape[-2:] for item in maps), key=lambda shape: shape[0] * shape[1])
        return torch.cat([_resize(item, size) for item in maps], dim=1)

    def _select(self, outputs: Tensor | Sequence[Tensor], images: Tensor) -> list[Tensor]:
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        name = type(self.backbone).__name__
        try:
            selected = [self._as_map(outputs[index], images) for index in self.out_indices]
        except IndexError:
            raise ValueError(
                f'{name} returns {len(outputs)} outputs, out_indices asks for {self.out_indices}. '
                f'Choose among them, or set the out_indices of the wrapped backbone. It returns '
                f'{described_outputs(outputs)}.'
            ) from None
        for index, item in zip(self.out_indices, selected):
            if not isinstance(item, Tensor) or item.dim() != 4:
                shape = tuple(item.shape) if isinstance(item, Tensor) else type(item).__name__
                raise ValueError(
                    f'Output {index} of {name} is {shape}, not a feature map (B, C, h, w). '
                    "Vision transformers of mmpretrain give one with out_type='featmap'."
                )
        return selected

    def _as_map(self, output: Any, images: Tensor) -> Any:
        """Token sequences of a transformer, and maps of timm with channels last, as maps; anything else as it is."""
        timm_model = getattr(self.backbone, 'timm_model', None)
        if getattr(timm_model, 'output_fmt', None) == TIMM_CHANNELS_LAST and output.dim() == 4:
            return output.permute(0, 3, 1, 2)
        layout = token_layout(self.backbone)
        if layout is None or not isinstance(output, Tensor) or output.dim() != 3:
            return output
        rows, columns = token_grid(layout.patch_embed, images.shape[-2:])
        fits = output.shape[1] == layout.extra + rows * columns
        return patch_map(output, self.backbone, images) if fits else output

    @torch.no_grad()
    def _dry_run(self) -> tuple[int, int, int]:
        """Channels and stride of the features, and the stride of the coarsest map among them."""
        images = torch.zeros(1, 3, DRY_RUN_SIZE, DRY_RUN_SIZE)
        if self.feature == 'keys':
            features = self._taps(images, False, None).features
            widths = [features.shape[-1]]
        else:
            outputs = self._run(images)
            features = self._fuse(outputs, images)
            widths = [item.shape[-1] for item in self._select(outputs, images)]
        return features.shape[1], round(DRY_RUN_SIZE / features.shape[-1]), round(DRY_RUN_SIZE / min(widths))


def _reads_weights(module: nn.Module) -> bool:
    """Whether a module of mmengine initialises itself from a file."""
    configs = getattr(module, 'init_cfg', None) or []
    configs = [configs] if isinstance(configs, dict) else configs
    return any(config.get('type') in ('Pretrained', PretrainedInit) for config in configs)


def _check_choice(name: str, value: str | None, choices: Sequence[str | None]) -> None:
    if value not in choices:
        raise ValueError(f'{name} must be one of {tuple(choices)}; got {value!r}.')


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=False)
