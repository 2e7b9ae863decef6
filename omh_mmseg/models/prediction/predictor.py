"""From the code of a batch to the masks of its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from omh_mmseg.models.data_preprocessor import bgr_bytes_by
from omh_mmseg.models.prediction.cluster_assignment import ClusterAssignment
from omh_mmseg.models.prediction.cluster_bias import ClusterBias, clusterings, counts_length
from omh_mmseg.models.prediction.code_maps import flip_averaged, slide_averaged
from omh_mmseg.models.prediction.options import PredictionOptions
from omh_mmseg.models.prediction.upsampling import MAX_VALUES, Upsampling, arg_max, upsampled_norm
from omh_mmseg.models.utils.similarity import centre_scores
from omh_mmseg.structures.frozen_inputs import Inputs, pixels
from omh_mmseg.utils.precision import widened

LOGIT_FIELDS = ('pred_linear',)
"""Predictions whose scores are logits; all others come from cosines."""


class PredictingModel(Protocol):
    """What a prediction asks of a model."""

    data_preprocessor: nn.Module
    backbone: Any
    cluster_probe: Any
    linear_probe: Any
    omh_head: Any
    assignment: ClusterAssignment
    cluster_bias: ClusterBias

    def encode(self, inputs: Inputs) -> Tensor:
        """Code (B, D, h, w) of normalised images (B, 3, H, W)."""


class Predictor:
    """Predicts as a ``test_cfg`` says.

    It keeps options and CRF alone. Preprocessor, probes, levels and the classes of the clusters are those that the
    model has when it predicts: a copy of the model, or one with another part in its place, predicts from its parts.

    Args:
        test_cfg: As in the config; see `PredictionOptions`.
        model: What the options are checked against; not kept.

    Attributes:
        options: What ``test_cfg`` says.
        crf: The CRF; None without one.

    Raises:
        ImportError: The back end of the CRF is not installed.
        ValueError: On wrong values, levels that the model does not have, or a CRF with a preprocessor that cannot give
            images back.
    """

    def __init__(self, test_cfg: Mapping[str, Any], model: PredictingModel) -> None:
        self.options = PredictionOptions.from_test_cfg(test_cfg, model.backbone.stride)
        self.levels(model)
        self.crf = self.options.build_crf()
        if self.crf is not None:
            bgr_bytes_by(model.data_preprocessor)

    def levels(self, model: PredictingModel) -> list[int]:
        """Numbers of the OMH levels that are predicted, 1 the coarsest.

        Raises:
            ValueError: The model does not have them all.
        """
        existing = [] if model.omh_head is None else list(range(1, len(model.omh_head.level_sizes) + 1))
        if self.options.levels is None:
            return existing
        if not set(self.options.levels) <= set(existing):
            among = f'must be among {existing}' if existing else 'choose levels of OMH, and the model has none'
            raise ValueError(f'test_cfg.levels {among}; got {list(self.options.levels)}.')
        return list(self.options.levels)

    def linear_probe(self, model: PredictingModel) -> Any:
        """The linear probe of a model; None where it is not asked for, absent, or never saw a label and is random."""
        probe = model.linear_probe if self.options.linear else None
        return None if getattr(probe, 'unlabelled', False) else probe

    def encode(self, model: PredictingModel, inputs: Inputs) -> Tensor:
        """Code (B, D, h, w) of one view: with windows where they are asked for."""
        if self.options.mode == 'whole':
            return widened(model.encode(inputs))
        crop, step = self.options.crop_size, self.options.stride
        return widened(slide_averaged(model.encode, pixels(inputs), crop, step, model.backbone.stride))

    def code(self, model: PredictingModel, inputs: Inputs) -> Tensor:
        """Code (B, D, h, w) that predictions start from: with windows and flip averaging where they are asked for."""
        encode = partial(self.encode, model)
        return flip_averaged(encode, inputs) if self.options.flip else encode(inputs)

    def masks(
        self, model: PredictingModel, code: Tensor, inputs: Inputs, samples: list[SegDataSample]
    ) -> list[SegDataSample]:
        """Masks of every field from a code.

        The result is that of upsampling the code and comparing each pixel with the centres
        (docs/methods/evaluation.md 6.1), reached by upsampling the scores instead: dot products are linear in the code,
        and neither the interpolation nor the arg-max sees the length of a pixel's code. The bias of a closing refit
        grows with that length (docs/methods/evaluation.md 6.7). A CRF sees it, too, and gets the log-probabilities of
        docs/methods/evaluation.md 6.4; it runs at the size of the input, where the image is, and its result is
        upsampled.

        Args:
            model: Whose probes and levels the code is compared with.
            code: (B, D, h, w).
            inputs: Its images (B, 3, H, W), normalised, or what is frozen of them.
            samples: One per image, with metadata and, where present, labels; the masks are put there.

        Returns:
            The samples, see `UnsupervisedSegmentor.predict`.
        """
        scores, padded = self._scores(model, code), inputs.shape[-2:]
        # One image at a time: at the size of a photo the scores of a batch would take gigabytes.
        if self.crf is None:
            per_image = ({name: maps[i : i + 1] for name, maps in scores.items()} for i in range(len(samples)))
        else:
            refined = self.crf.refine(self._crf_jobs(model, code, scores, pixels(inputs), samples))
            per_image = ({name: maps[None] for name, maps in one.items()} for one in refined)
        for index, (sample, fields) in enumerate(zip(samples, per_image)):
            upsampling = self.upsampling(padded, sample)
            biases: dict[str, Tensor | None] = {}
            if self.crf is None:
                biases = {name: model.cluster_bias.of(name) for name in fields}
            else:  # Its result has no padding any more.
                upsampling = replace(upsampling, padded=upsampling.image)
            norm = None
            if any(bias is not None for bias in biases.values()):
                norm = _norm(code[index : index + 1], upsampling)
            for name, maps in fields.items():
                setattr(sample, name, PixelData(data=arg_max(maps, upsampling, biases.get(name), norm)))
        model.assignment.annotate(samples)
        return samples

    def upsampling(self, padded: Sequence[int], sample: SegDataSample) -> Upsampling:
        """From the grid of a padded image to the size that the sample is scored at, without the padding."""
        height, width = image_size(sample, padded)
        return Upsampling((padded[0], padded[1]), (height, width), self._target_size(sample, (height, width)))

    def _scores(self, model: PredictingModel, code: Tensor) -> dict[str, Tensor]:
        """Scores (B, K, h, w), linear in the code, whose arg-max, with the bias, is the prediction of each field."""
        centres = clusterings(model)
        counts = counts_length(model, 'pred_sem_seg')
        scores = dict(pred_sem_seg=centre_scores(code, centres['pred_sem_seg'], normalise=not counts))
        linear_probe = self.linear_probe(model)
        if linear_probe is not None:
            scores['pred_linear'] = linear_probe(code)
        for field in (f'pred_level{level}' for level in self.levels(model)):
            scores[field] = centre_scores(code, centres[field])
        return scores

    def _crf_jobs(
        self,
        model: PredictingModel,
        code: Tensor,
        scores: dict[str, Tensor],
        images: Tensor,
        samples: Sequence[SegDataSample],
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Each image (3, h, w) and the log-probabilities (K, h, w) of its fields, at the size of the input."""
        padded, to_bgr_bytes = images.shape[-2:], bgr_bytes_by(model.data_preprocessor)
        for index, sample in enumerate(samples):
            height, width = image_size(sample, padded)
            norm = upsampled_norm(code[index : index + 1], padded).clamp_min(torch.finfo(torch.float32).tiny)
            log_probabilities = {}
            for name, maps in scores.items():
                full = F.interpolate(maps[index : index + 1], size=padded, mode='bilinear', align_corners=False)
                if name in LOGIT_FIELDS:
                    logits = full
                elif counts_length(model, name):
                    logits = norm * model.cluster_bias.add(name, full / norm)
                else:
                    logits = self.options.alpha * model.cluster_bias.add(name, full / norm)
                log_probabilities[name] = torch.log_softmax(logits[0, :, :height, :width], dim=0)
            yield to_bgr_bytes(images[index, :, :height, :width]), log_probabilities

    def _target_size(self, sample: SegDataSample, size: tuple[int, int]) -> tuple[int, int]:
        if self.options.output_size == 'original' and 'gt_sem_seg' in sample:
            height, width = sample.gt_sem_seg.data.shape[-2:]
            return height, width
        # A cropped input has no pixels for the rest of the original image.
        if self.options.output_size == 'input' or 'crop_bbox' in sample.metainfo:
            return size
        height, width = sample.metainfo.get('ori_shape', size)[:2]
        return height, width


def image_size(sample: SegDataSample, padded: Sequence[int]) -> tuple[int, int]:
    """Size of an image in the network's input, without the padding of the batch."""
    height, width = sample.metainfo.get('img_shape', padded)[:2]
    return height, width


def _norm(code: Tensor, upsampling: Upsampling) -> Tensor:
    """Length (1, 1, H, W) of each pixel's upsampled code (1, D, h, w)."""
    height, width = upsampling.target
    if upsampling.image == upsampling.padded:
        return upsampled_norm(code, (height, width))
    # Upsampled twice, a pixel's code is a sum of more than four.
    parts = code.split(max(1, MAX_VALUES // (height * width)), dim=1)
    squares = [upsampling(part).square().sum(1, keepdim=True) for part in parts]
    return torch.stack(squares).sum(0).sqrt()
