"""What all unsupervised segmentors share: frozen features, code, probes, OMH and prediction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.models.cluster_assignment import ClusterAssignment
from omh_mmseg.models.decode_heads import centre_scores
from omh_mmseg.registry import MODELS

IGNORED_LABEL = 255
OUTPUT_SIZES = ('original', 'input')


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
            host's, are logged; 0 never.
        test_cfg: ``output_size``: ``'original'`` scores and paints at the size of the label (of the image, without
            one), ``'input'`` at the size of the network's input. ``levels``: the OMH levels to predict beside the
            probe; all by default, ``[]`` for none, at no cost then. ``assignment``: the classes of the clusters, set by
            hand, see `ClusterAssignment`.
        train_cfg: Unused; mmseg's tools set it.
        pretrained: Must be None; mmseg's tools set it.
        init_cfg: See mmengine.

    Raises:
        ValueError: On an unknown ``output_size``, test mode or level, or weights given by ``pretrained``.
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
        self.test_cfg = dict(test_cfg or {})
        self.output_size = self.test_cfg.get('output_size', 'original')
        if self.output_size not in OUTPUT_SIZES:
            raise ValueError(f'test_cfg.output_size must be one of {OUTPUT_SIZES}; got {self.output_size!r}.')
        if self.test_cfg.get('mode', 'whole') != 'whole':
            raise ValueError(f"test_cfg.mode must be 'whole'; got {self.test_cfg['mode']!r}.")
        self.num_classes = num_classes
        self.gradient_log_interval = gradient_log_interval
        self.backbone = MODELS.build(backbone)
        on_features = dict(in_channels=self.backbone.out_channels, num_classes=num_classes)
        self.decode_head = MODELS.build({**decode_head, **on_features})
        on_code = dict(in_channels=self.decode_head.channels, num_classes=num_classes)
        self.cluster_probe = MODELS.build({**cluster_probe, **on_code})
        self.linear_probe = None if linear_probe is None else MODELS.build({**linear_probe, **on_code})
        self.omh_head = None if omh_head is None else MODELS.build({**omh_head, **on_code})
        self.levels = self._checked_levels(self.test_cfg.get('levels'))
        sizes = [] if self.omh_head is None else self.omh_head.level_sizes
        fields = dict(pred_sem_seg=num_classes) | {f'pred_level{level}': size for level, size in enumerate(sizes, 1)}
        self.assignment = ClusterAssignment(fields, self.test_cfg.get('assignment'))
        self.register_buffer('iteration', torch.zeros((), dtype=torch.long))

    @abstractmethod
    def host_losses(self, inputs: Tensor | dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The host's own losses of one batch.

        Args:
            inputs: Normalised views (B, 3, H, W), by name where there are several.

        Returns:
            The named losses; the whole code they were computed on; and the part of it (B, D, h, w) that belongs to
            the labelled images.
        """

    def loss(self, inputs: Tensor | dict[str, Tensor], data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Named losses and figures of one training step.

        Args:
            inputs: See `host_losses`.
            data_samples: One per image; labels, where present, train the linear probe only. Without any, its loss is 0:
                left out, it would stop distributed training, which waits for the gradient of every parameter.
        """
        losses, whole_code, code = self.host_losses(inputs)
        host = torch.stack(list(losses.values())).sum()
        losses.update(self.cluster_probe.loss(code))
        if self.linear_probe is not None:
            losses.update(self.linear_probe.loss(code, _stack_labels(data_samples, code)))
        if self.omh_head is not None:
            added = self.omh_head.loss(code)
            losses.update(added)
            if self.gradient_log_interval and int(self.iteration) % self.gradient_log_interval == 0:
                losses.update(_gradient_norms(host, added, whole_code))
        self.iteration += 1
        return losses

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Frozen features (B, C, h, w) of normalised images (B, 3, H, W)."""
        return self.backbone(inputs)

    def encode(self, inputs: Tensor) -> Tensor:
        """Code (B, D, h, w) of normalised images (B, 3, H, W)."""
        return self.decode_head(self.extract_feat(inputs))

    def encode_decode(self, inputs: Tensor, batch_data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        """Scores of the cluster probe at the size of the input, (B, K, H, W)."""
        code = F.interpolate(self.encode(inputs), size=inputs.shape[-2:], mode='bilinear', align_corners=False)
        return self.cluster_probe(code)

    def _forward(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> Tensor:
        """Scores of the cluster probe on the code's grid, (B, K, h, w)."""
        return self.cluster_probe(self.encode(inputs))

    def predict(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> list[SegDataSample]:
        """Segment a batch.

        The result is that of upsampling the code and comparing each pixel with the centres (METHODS.md 6.1), reached
        by upsampling the scores instead: dot products are linear in the code, and neither the interpolation nor the
        arg-max sees the length of a pixel's code.

        Args:
            inputs: Normalised images (B, 3, H, W), possibly padded at the right and bottom.
            data_samples: Their metadata and, where present, labels.

        Returns:
            The samples with cluster numbers (1, h, w) in ``pred_sem_seg`` (cluster probe), ``pred_linear`` (classes)
            and, with OMH, ``pred_level1``, ``pred_level2``, ...; once matched, with the classes of the clusters in their
            metadata, see `ClusterAssignment.annotate`.
        """
        samples = [SegDataSample() for _ in inputs] if data_samples is None else list(data_samples)
        scores = self._score_maps(self.encode(inputs).float())
        # One image at a time: at the size of a photo the scores of a batch would take gigabytes.
        for index, sample in enumerate(samples):
            for name, maps in scores.items():
                # With the scores of a pixel side by side, interpolation and arg-max take a third of the time on a CPU.
                one = maps[index : index + 1].contiguous(memory_format=torch.channels_last)
                full = self.upsample(one, inputs.shape[-2:], sample)
                setattr(sample, name, PixelData(data=full.argmax(1)))
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

    def upsample(self, maps: Tensor, padded: Sequence[int], sample: SegDataSample) -> Tensor:
        """Maps (1, K, h, w) at the size that the sample is scored at, without the padding of the batch."""
        height, width = sample.metainfo.get('img_shape', padded)[:2]
        target = self._target_size(sample, (height, width))
        if (height, width) != tuple(padded):
            maps = F.interpolate(maps, size=tuple(padded), mode='bilinear', align_corners=False)
            maps = maps[..., :height, :width]
        if tuple(maps.shape[-2:]) == target:
            return maps
        return F.interpolate(maps, size=target, mode='bilinear', align_corners=False)

    def _target_size(self, sample: SegDataSample, image_size: tuple[int, int]) -> tuple[int, int]:
        if self.output_size == 'original' and 'gt_sem_seg' in sample:
            height, width = sample.gt_sem_seg.data.shape[-2:]
            return height, width
        # A cropped input has no pixels for the rest of the original image.
        if self.output_size == 'input' or 'crop_bbox' in sample.metainfo:
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


def _gradient_norms(host: Tensor, added: dict[str, Tensor], code: Tensor) -> dict[str, Tensor]:
    """Norm of the host's gradient on the code, and those of OMH's losses relative to it."""
    figures = {'code_gradient_host': _norm(host, code)}
    for name, loss in added.items():
        if name.startswith('loss_') and loss.requires_grad:
            ratio = _norm(loss, code) / figures['code_gradient_host'].clamp_min(torch.finfo(torch.float32).tiny)
            figures[f'code_gradient_{name.removeprefix("loss_")}'] = ratio
    return figures


def _norm(loss: Tensor, code: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, code, retain_graph=True, allow_unused=True)
    return code.new_zeros((), dtype=torch.float32) if gradient is None else gradient.float().norm()
