"""What all unsupervised segmentors share: frozen features, code, probes, OMH and prediction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.models.omh.gradient_shares import GradientShares, gradient_figures
from omh_mmseg.models.prediction.cluster_assignment import ClusterAssignment
from omh_mmseg.models.prediction.code_maps import arg_max, flip_averaged, slide_averaged, upsampled_norm
from omh_mmseg.models.prediction.options import PredictionOptions
from omh_mmseg.models.utils.similarity import centre_scores
from omh_mmseg.models.utils.step_counter import StepCounter
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs, Inputs, pixels
from omh_mmseg.utils.precision import widened

IGNORED_LABEL = 255
LOGIT_FIELDS = ('pred_linear',)
"""Predictions whose scores are logits; all others come from cosines."""


class UnsupervisedSegmentor(BaseSegmentor):
    """Base of the hosts; a host implements ``host_losses``.

    The flow of a step (ARCHITECTURE.md): frozen backbone -> projection head -> code; the host's losses on features and
    code; both probes on the detached code; OMH on the code itself.

    Args:
        num_classes: K, the number of classes and of clusters of the probe and of OMH's level 1.
        backbone: Config of the frozen backbone.
        decode_head: Config of the projection head; ``in_channels`` (of the backbone) and ``num_classes`` are filled in.
        cluster_probe: Config of the cluster probe; ``in_channels`` and ``num_classes`` are filled in.
        linear_probe: Config of the linear probe, likewise; None leaves it out.
        omh_head: Config of `OMHHead`, likewise; None switches OMH off.
        data_preprocessor: See mmengine.
        gradient_log_interval: Every so many steps the norms of each OMH loss's gradient on the code, relative to the
            host's, and their cosines with it are logged; 0 never.
        test_cfg: How to predict, see `PredictionOptions`. ``assignment``: the classes of the clusters, set by
            hand, see `ClusterAssignment`.
        train_cfg: Unused; mmseg's tools set it.
        pretrained: Must be None; mmseg's tools set it.
        init_cfg: See mmengine.

    Raises:
        ValueError: On wrong values in ``test_cfg``, or weights given by ``pretrained``.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: dict[str, Any],
        decode_head: dict[str, Any],
        cluster_probe: dict[str, Any],
        linear_probe: dict[str, Any] | None = None,
        omh_head: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        gradient_log_interval: int = 50,
        test_cfg: dict[str, Any] | None = None,
        train_cfg: dict[str, Any] | None = None,
        pretrained: None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if pretrained is not None:
            raise ValueError(f'pretrained must be None; got {pretrained!r}. Set model.backbone.checkpoint instead.')
        self.num_classes = num_classes
        self.gradient_log_interval = gradient_log_interval
        self.backbone = MODELS.build(backbone)
        on_features = dict(in_channels=self.backbone.out_channels, num_classes=num_classes)
        self.decode_head = MODELS.build({**decode_head, **on_features})
        on_code = dict(in_channels=self.decode_head.channels, num_classes=num_classes)
        self.cluster_probe = MODELS.build({**cluster_probe, **on_code})
        self.linear_probe = None if linear_probe is None else MODELS.build({**linear_probe, **on_code})
        self.omh_head = None if omh_head is None else MODELS.build({**omh_head, **on_code})
        self.use_test_cfg(test_cfg or {})
        sizes = [] if self.omh_head is None else self.omh_head.level_sizes
        fields = dict(pred_sem_seg=len(self.cluster_probe.centres))
        fields |= {f'pred_level{level}': size for level, size in enumerate(sizes, 1)}
        self.assignment = ClusterAssignment(fields, self.test_cfg.get('assignment'))
        self.register_buffer('iteration', torch.zeros((), dtype=torch.long))
        self._step_counter = StepCounter()

    @property
    def step(self) -> int:
        """Training steps made, as in the buffer ``iteration``; reading it does not wait for the device."""
        return self._step_counter.read(self.iteration)

    def use_test_cfg(self, test_cfg: Mapping[str, Any]) -> None:
        """Predict as a ``test_cfg`` says from now on; see `PredictionOptions`.

        Raises:
            ImportError: The back end of the CRF is not installed.
            ValueError: On wrong values.
        """
        options = PredictionOptions.from_test_cfg(test_cfg, self.backbone.stride)
        self.levels = self._checked_levels(options.levels)
        self.crf = options.build_crf()
        self.test_cfg, self.options = dict(test_cfg), options

    @abstractmethod
    def host_losses(self, inputs: Inputs | dict[str, Inputs]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The host's own losses of one batch.

        Args:
            inputs: Normalised views (B, 3, H, W), by name where there are several, or what is frozen of them.

        Returns:
            The named losses; the whole code they were computed on; and its first rows (B, D, h, w), which belong to
            the labelled images.
        """

    def loss(self, inputs: Inputs | dict[str, Inputs], data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Named losses and figures of one training step.

        Args:
            inputs: See `host_losses`.
            data_samples: One per image; labels, where present, train the linear probe only. Without any, its loss is 0:
                left out, it would stop distributed training, which waits for the gradient of every parameter.
        """
        if self.omh_head is not None:
            self.omh_head.begin_step()
        losses, whole_code, code = self.host_losses(inputs)
        host = torch.stack(list(losses.values())).sum()
        losses.update(self.cluster_probe.loss(code))
        if self.linear_probe is not None:
            losses.update(self.linear_probe.loss(code, _stack_labels(data_samples, code)))
        if self.omh_head is not None:
            shares = GradientShares(whole_code) if self.omh_head.needs_shares(self.step) else None
            added = self.omh_head.loss(code, self.step, shares)
            losses.update(added)
            if self.gradient_log_interval and self.step % self.gradient_log_interval == 0:
                losses.update(gradient_figures(host, added, whole_code))
        self._step_counter.advance(self.iteration)
        return losses

    @property
    def frozen_fields(self) -> dict[str, str]:
        """What training needs of the frozen part, each with the settings that it depends on beside the backbone."""
        return dict(features='')

    @property
    def trains_on_images(self) -> bool:
        """Whether a training step needs the images beside what is frozen of them."""
        return False

    def freeze(self, images: Tensor) -> FrozenInputs:
        """The `frozen_fields` of normalised images (B, 3, H, W), which stand for them from then on."""
        return FrozenInputs(self.backbone(images), size=(images.shape[-2], images.shape[-1]))

    def extract_feat(self, inputs: Inputs) -> Tensor:
        """Frozen features (B, C, h, w) of normalised images (B, 3, H, W)."""
        return inputs.features if isinstance(inputs, FrozenInputs) else self.backbone(inputs)

    def encode(self, inputs: Inputs) -> Tensor:
        """Code (B, D, h, w) of normalised images (B, 3, H, W)."""
        return self.decode_head(self.extract_feat(inputs))

    def encode_decode(self, inputs: Inputs, batch_data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        """Scores of the cluster probe at the size of the input, (B, K, H, W)."""
        code = F.interpolate(self.encode(inputs), size=inputs.shape[-2:], mode='bilinear', align_corners=False)
        return self.cluster_probe(code)

    def _forward(self, inputs: Inputs, data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        """Scores of the cluster probe on the code's grid, (B, K, h, w)."""
        return self.cluster_probe(self.encode(inputs))

    def predict(self, inputs: Inputs, data_samples: Sequence[SegDataSample] | None = None) -> list[SegDataSample]:
        """Segment a batch.

        The result is that of upsampling the code and comparing each pixel with the centres (METHODS.md 6.1), reached
        by upsampling the scores instead: dot products are linear in the code, and neither the interpolation nor the
        arg-max sees the length of a pixel's code. A CRF does see it, and gets the log-probabilities of METHODS.md 6.4;
        it runs at the size of the input, where the image is, and its result is upsampled.

        Args:
            inputs: Normalised images (B, 3, H, W), possibly padded at the right and bottom, or what is frozen of them.
            data_samples: Their metadata and, where present, labels.

        Returns:
            The samples with cluster numbers (1, h, w) in ``pred_sem_seg`` (cluster probe), ``pred_linear`` (classes)
            and, with OMH, ``pred_level1``, ``pred_level2``, ...; once matched, with the classes of the clusters in
            their metadata, see `ClusterAssignment.annotate`.
        """
        samples = [SegDataSample() for _ in range(len(inputs))] if data_samples is None else list(data_samples)
        return self.predict_from_code(self.prediction_code(inputs), inputs, samples)

    def prediction_code(self, inputs: Inputs) -> Tensor:
        """Code (B, D, h, w) that predictions start from: with windows and flip averaging where ``test_cfg`` says so."""

        def encode(images: Inputs) -> Tensor:
            if self.options.mode == 'whole':
                code = self.encode(images)
            else:
                crop, step = self.options.crop_size, self.options.stride
                code = slide_averaged(self.encode, pixels(images), crop, step, self.backbone.stride)
            return widened(code)

        return flip_averaged(encode, inputs) if self.options.flip else encode(inputs)

    def predict_from_code(self, code: Tensor, inputs: Inputs, samples: list[SegDataSample]) -> list[SegDataSample]:
        """`predict`, given the code (B, D, h, w) of the inputs."""
        scores = self._score_maps(code)
        # One image at a time: at the size of a photo the scores of a batch would take gigabytes.
        if self.crf is None:
            per_image = ({name: maps[i : i + 1] for name, maps in scores.items()} for i in range(len(samples)))
        else:
            refined = self.crf.refine(self._crf_jobs(code, scores, pixels(inputs), samples))
            per_image = ({name: maps[None] for name, maps in one.items()} for one in refined)
        for sample, fields in zip(samples, per_image):
            size = self._image_size(sample, inputs.shape[-2:])
            # The CRF's result has no padding any more.
            resize = partial(self.upsample, padded=inputs.shape[-2:] if self.crf is None else size, sample=sample)
            height, width = self._target_size(sample, size)
            for name, maps in fields.items():
                setattr(sample, name, PixelData(data=arg_max(maps, resize, height * width)))
        self.assignment.annotate(samples)
        return samples

    def _checked_levels(self, levels: Sequence[int] | None) -> list[int]:
        existing = [] if self.omh_head is None else list(range(1, len(self.omh_head.level_sizes) + 1))
        if levels is None:
            return existing
        if not set(levels) <= set(existing):
            raise ValueError(f'test_cfg.levels must be among {existing}; got {list(levels)}.')
        return list(levels)

    def _score_maps(self, code: Tensor) -> dict[str, Tensor]:
        """Scores (B, K, h, w), linear in the code, whose arg-max is the prediction of each field."""
        scores = dict(pred_sem_seg=centre_scores(code, self.cluster_probe.centres))
        if self.linear_probe is not None:
            scores['pred_linear'] = self.linear_probe(code)
        if self.omh_head is not None:
            for level in self.levels:
                scores[f'pred_level{level}'] = centre_scores(code, self.omh_head.centres[level - 1])
        return scores

    def _crf_jobs(
        self, code: Tensor, scores: dict[str, Tensor], inputs: Tensor, samples: Sequence[SegDataSample]
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Each image (3, h, w) and the log-probabilities (K, h, w) of its fields, at the size of the input."""
        padded = inputs.shape[-2:]
        for index, sample in enumerate(samples):
            height, width = self._image_size(sample, inputs.shape[-2:])
            norm = upsampled_norm(code[index : index + 1], padded).clamp_min(torch.finfo(torch.float32).tiny)
            log_probabilities = {}
            for name, maps in scores.items():
                full = F.interpolate(maps[index : index + 1], size=padded, mode='bilinear', align_corners=False)
                logits = full if name in LOGIT_FIELDS else self.options.alpha * full / norm
                log_probabilities[name] = torch.log_softmax(logits[0, :, :height, :width], dim=0)
            yield self._bgr_image(inputs[index, :, :height, :width]), log_probabilities

    def _bgr_image(self, image: Tensor) -> Tensor:
        """uint8 (3, H, W) of a normalised image, as the hosts' code makes it (METHODS.md 6.5).

        They take it back from [0, 1], times 255, and truncate, which in float32 lowers about a third of all values by
        one, and moves the CRF at one pixel in a thousand. Which third depends on every rounding on the way, so that the
        way is gone again here, from the exact values.
        """
        preprocessor = self.data_preprocessor
        if getattr(preprocessor, '_enable_normalize', False):
            # Rounded to the decimals of 0.485, ...: 57.12 / 255 is the neighbour of 0.224 in float32.
            statistics = (preprocessor.mean, preprocessor.std)
            mean, std = ((value.cpu().double() / 255).round(decimals=6).to(image) for value in statistics)
            exact = (image * preprocessor.std + preprocessor.mean).round().clamp(0, 255)
            image = ((exact / 255 - mean) / std * std + mean) * 255
        else:
            image = image.round()
        image = image.clamp(0, 255).byte()
        return image.flip(0) if getattr(preprocessor, '_channel_conversion', False) else image

    def upsample(self, maps: Tensor, padded: Sequence[int], sample: SegDataSample) -> Tensor:
        """Maps (1, K, h, w) at the size that the sample is scored at, without the padding of the batch."""
        height, width = self._image_size(sample, padded)
        target = self._target_size(sample, (height, width))
        if (height, width) != tuple(padded):
            maps = F.interpolate(maps, size=tuple(padded), mode='bilinear', align_corners=False)
            maps = maps[..., :height, :width]
        if tuple(maps.shape[-2:]) == target:
            return maps
        return F.interpolate(maps, size=target, mode='bilinear', align_corners=False)

    def _image_size(self, sample: SegDataSample, padded: Sequence[int]) -> tuple[int, int]:
        """Size of an image in the network's input, without the padding of the batch."""
        height, width = sample.metainfo.get('img_shape', padded)[:2]
        return height, width

    def _target_size(self, sample: SegDataSample, image_size: tuple[int, int]) -> tuple[int, int]:
        if self.options.output_size == 'original' and 'gt_sem_seg' in sample:
            height, width = sample.gt_sem_seg.data.shape[-2:]
            return height, width
        # A cropped input has no pixels for the rest of the original image.
        if self.options.output_size == 'input' or 'crop_bbox' in sample.metainfo:
            return image_size
        height, width = sample.metainfo.get('ori_shape', image_size)[:2]
        return height, width


def _stack_labels(data_samples: Sequence[SegDataSample], code: Tensor) -> Tensor:
    """Labels (B, H, W); images without one count as ignored, on the grid of the code (B, D, h, w) if none has one."""
    labels = [sample.gt_sem_seg.data.squeeze(0) if 'gt_sem_seg' in sample else None for sample in data_samples]
    known = next((label for label in labels if label is not None), None)
    if known is None:
        known = torch.zeros(code.shape[-2:], dtype=torch.long, device=code.device)
    return torch.stack([torch.full_like(known, IGNORED_LABEL) if label is None else label for label in labels])


