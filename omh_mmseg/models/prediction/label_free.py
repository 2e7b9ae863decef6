"""Measures what can be said of a model's predictions without labels, one image after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from torch import Tensor

from omh_mmseg.evaluation.heads import field_of, head_of
from omh_mmseg.evaluation.label_free import (
    FIGURES,
    BoundaryAgreement,
    effective_clusters,
    image_gradients,
    margins,
)
from omh_mmseg.models.prediction.cluster_bias import clusterings, counts_length
from omh_mmseg.models.prediction.upsampling import Upsampling, arg_max, upsampled_norm
from omh_mmseg.models.utils.similarity import centre_scores, code_similarity

CROP = 0.75
"""Sides of the crop, as shares of those of the image."""
PREFIX = 'label_free'
_MEANS = tuple(figure for figure in FIGURES if figure not in ('in_use', 'effective'))


class LabelFreeMeter:
    """Sums of the figures of `omh_mmseg.evaluation.label_free` over images, for the cluster probe and every level.

    An image goes through the network three times: as it is, mirrored, and cut to its middle. Clusters of the three,
    with the bias of a closing refit, are compared on the grid of the code. Flip averaging and CRF are left out, as both
    would be a part of what is measured.

    Args:
        model: A segmentor; see `PredictingModel`.

    Attributes:
        sizes: Head -> pixels of each cluster at the size of the network's input, int64 (K,).
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.sizes = {head: np.zeros(len(centres), np.int64) for head, centres in self._centres().items()}
        # Per head and figure the sum and the weight of what it is a mean of.
        self._sums = {head: np.zeros((len(_MEANS), 2)) for head in self.sizes}

    def code(self, inputs: Tensor) -> Tensor:
        """Code (B, D, h, w) of normalised images (B, 3, H, W): with ``test_cfg``'s windows, without its flip."""
        return self.model.predictor.encode(self.model, inputs)

    @torch.no_grad()
    def add(
        self, inputs: Tensor, size: tuple[int, int], code: Tensor | None = None, passes: bool = True,
        mirrored: Tensor | None = None,
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:  # fmt: skip
        """Take an image into account.

        Args:
            inputs: Normalised, (1, 3, H, W), possibly padded at the right and bottom.
            size: Height and width without the padding.
            code: What `code` gives of it, where it is known.
            passes: False spares the passes of the mirrored and the cropped image, and measures nothing.
            mirrored: What `code` gives of the mirrored image, likewise.

        Returns:
            Per head the clusters (h, w) and margins (h, w) on the grid of the code, without that of the padding.
        """
        code = self.code(inputs) if code is None else code
        height, width = (
            max(1, pixels * cells // whole) for pixels, whole, cells in zip(size, inputs.shape[-2:], code.shape[-2:])
        )
        grid = {}
        for head, centres in self._centres().items():
            similarities = self._similarities(head, code[..., :height, :width], centres)[0]
            grid[head] = (similarities.argmax(0), margins(similarities))
        if passes:
            self._measure(inputs, size, code, self.code(inputs.flip(-1)) if mirrored is None else mirrored, grid)
        return {head: (clusters.cpu().numpy(), margin.cpu().numpy()) for head, (clusters, margin) in grid.items()}

    def state(self) -> Tensor:
        """All sums, float64 of one dimension; those of several meters of one model add up."""
        parts = [part for head in self.sizes for part in (self.sizes[head], self._sums[head].ravel())]
        return torch.from_numpy(np.concatenate(parts).astype(np.float64))

    def use_state(self, state: Tensor) -> None:
        """Go on from such sums."""
        values, start = state.cpu().numpy(), 0
        for head, sizes in self.sizes.items():
            sums = self._sums[head]
            self.sizes[head] = values[start : start + len(sizes)].astype(np.int64)
            start += len(sizes)
            self._sums[head] = values[start : start + sums.size].reshape(sums.shape).copy()
            start += sums.size

    def figures(self) -> dict[str, dict[str, float]]:
        """Head -> figure -> value; see docs/evaluation.md. Those that no image has a value of are NaN.

        ``in_use`` and ``effective`` are numbers of clusters, ``margin`` is a difference of the scores that decide, the
        others are in percent.
        """
        result: dict[str, dict[str, float]] = {}
        for head, sizes in self.sizes.items():
            values = dict(in_use=float((sizes > 0).sum()), effective=effective_clusters(sizes))
            for name, (total, weight) in zip(_MEANS, self._sums[head]):
                scale = 1 if name == 'margin' else 100
                values[name] = scale * total / weight if weight else math.nan
            result[head] = values
        return result

    def scores(self) -> dict[str, float]:
        """The figures that have a value by the names that logs and tables give them, ``label_free/level1/margin``."""
        return {
            f'{PREFIX}/{head}/{name}': value
            for head, values in self.figures().items() for name, value in values.items() if math.isfinite(value)
        }  # fmt: skip

    def _measure(
        self, inputs: Tensor, size: tuple[int, int], code: Tensor, mirrored: Tensor,
        grid: dict[str, tuple[Tensor, Tensor]],
    ) -> None:  # fmt: skip
        height, width = next(iter(grid.values()))[0].shape
        mirrored = _fitted(mirrored.flip(-1), code.shape[-2:])[..., :height, :width]
        (top, rows), (left, columns) = _middle(height), _middle(width)
        cell = self.model.backbone.stride
        cut = inputs[..., top * cell : (top + rows) * cell, left * cell : (left + columns) * cell]
        cropped = _fitted(self.code(cut), (rows, columns))
        boundaries = BoundaryAgreement(image_gradients(inputs[0, :, : size[0], : size[1]]))
        for head, centres in self._centres().items():
            clusters, margin = grid[head]
            inside = clusters[top : top + rows, left : left + columns]
            pixels = self._pixels(head, code, centres, inputs.shape[-2:])[: size[0], : size[1]]
            self.sizes[head] += np.bincount(pixels.flatten().cpu().numpy(), minlength=len(centres))
            self._mean(head, 'margin', float(margin.double().mean()), margin.numel())
            for figure, expected, other in (('mirror', clusters, mirrored), ('crop', inside, cropped)):
                same = expected == self._similarities(head, other, centres).argmax(1)[0]
                self._mean(head, figure, float(same.double().mean()), same.numel())
            self._mean(head, 'boundary', boundaries.of(pixels), 1)

    def _centres(self) -> dict[str, Tensor]:
        return {head_of(field): centres for field, centres in clusterings(self.model).items()}

    def _similarities(self, head: str, code: Tensor, centres: Tensor) -> Tensor:
        """Cosines (B, K, h, w) of a head, times the lengths of centres that count, with the bias of a closing refit."""
        similarities = code_similarity(code, centres)
        if counts_length(self.model, field_of(head)):
            similarities = similarities * centres.norm(dim=1).to(similarities)[:, None, None]
        return self.model.cluster_bias.add(field_of(head), similarities)

    def _pixels(self, head: str, code: Tensor, centres: Tensor, size: tuple[int, ...]) -> Tensor:
        """Clusters (H, W) as `Predictor.masks` paints them without a CRF."""
        bias = self.model.cluster_bias.of(field_of(head))
        norm = None if bias is None else upsampled_norm(code, size)
        scores = centre_scores(code, centres, normalise=not counts_length(self.model, field_of(head)))
        return arg_max(scores, Upsampling.to(size), bias, norm)[0]

    def _mean(self, head: str, figure: str, value: float, weight: float) -> None:
        if math.isfinite(value):
            self._sums[head][_MEANS.index(figure)] += (value * weight, weight)


def measure_images(meter: LabelFreeMeter, dataset: Any, numbers: Sequence[int]) -> None:
    """Take items of a single-view data set into account, one image at a time.

    Args:
        meter: Of a model, which is in evaluation mode.
        dataset: Its items have ``inputs`` and ``data_samples``.
        numbers: Of the items.
    """
    for number in numbers:
        batch = pseudo_collate([dataset[number]])
        size = batch['inputs'][0].shape[-2:]
        meter.add(meter.model.data_preprocessor(batch, False)['inputs'], (int(size[0]), int(size[1])))


def _middle(cells: int) -> tuple[int, int]:
    """First cell and number of cells of the crop."""
    kept = max(1, round(CROP * cells))
    return (cells - kept) // 2, kept


def _fitted(code: Tensor, size: tuple[int, ...]) -> Tensor:
    """A code on another grid, where a backbone rounds the sides of an image otherwise."""
    if code.shape[-2:] == tuple(size):
        return code
    return F.interpolate(code, size=tuple(size), mode='bilinear', align_corners=False)
