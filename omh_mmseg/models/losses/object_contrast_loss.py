"""EAGLE's object-centric contrast of codes with the medoids of their cues (docs/methods/eagle.md 4.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.registry import MODELS
from omh_mmseg.transport.checks import may_look_at
from omh_mmseg.utils.checks import POSITIVE, SHARE, WEIGHT, ranges
from omh_mmseg.utils.precision import widened

CHUNK_ELEMENTS = 2**24


@torch.no_grad()
def patch_weights(features: Tensor) -> Tensor:
    r"""How much each position is like all of its image.

    .. math::
        G = F^T F \qquad w_p = \frac{1}{N} \sum_j G_{pj} / \|G_{\cdot j}\|

    Args:
        features: F, (B, C, h, w), not normalised.

    Returns:
        (B N), row by row of each image; about ``N ** -0.5``.

    Source: docs/methods/eagle.md 4.3.
    """
    with torch.autocast(features.device.type, enabled=False):
        maps = widened(features).flatten(2)
        # One image at a time: the matrix of all pairs is larger than the features.
        grams = (one.t() @ one for one in maps)
        return torch.cat([F.normalize(gram, dim=0).mean(1) for gram in grams])


@torch.no_grad()
def medoids(rows: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The row of each label with the smallest sum of distances to the others of its label, the first of several.

    Args:
        rows: (R, D).
        labels: int64 (R,), 0 to ``count`` - 1.
        count: M.

    Returns:
        Numbers of the rows (M,), any for a label that no row has, and whether one has it (M,).
    """
    costs = rows.new_zeros(len(rows))
    if may_look_at(rows):
        for label in labels.unique():
            members = (labels == label).nonzero()[:, 0]
            inside = rows[members]
            chunks = inside.split(max(1, CHUNK_ELEMENTS // len(inside)))
            costs[members] = torch.cat([torch.cdist(chunk, inside).sum(1) for chunk in chunks])
    else:
        # How many rows a label has would have to be waited for; all pairs are cheap there.
        size = max(1, CHUNK_ELEMENTS // len(rows))
        chunks = zip(rows.split(size), labels.split(size))
        costs = torch.cat([(torch.cdist(chunk, rows) * (own[:, None] == labels)).sum(1) for chunk, own in chunks])
    least = costs.new_full((count,), torch.inf).scatter_reduce(0, labels, costs, 'amin')
    places = torch.arange(len(rows), device=rows.device)
    candidates = torch.where(costs == least[labels], places, len(rows) - 1)
    first = places.new_full((count,), len(rows) - 1).scatter_reduce(0, labels, candidates, 'amin')
    return first, least.isfinite()


@MODELS.register_module()
class ObjectContrastLoss(nn.Module):
    r"""Pulls projected codes of both views to the medoid of their cue's label, away from those of the others.

    With unit rows z of one view and z' of the other, labels y of the first and Q the rows of z that are the medoids of
    the labels present (their gradient counts),

    .. math::
        L = \frac{w}{2} ((1 - g) H(z Q^T / \tau) + g H(z' Q^T / \tau))

    where H is the mean over positions of :math:`w_p CE_p`; with smoothing, the mean of CE times that of :math:`w_p`, CE
    with the smoothing's share spread over the other labels that are present.

    Args:
        temperature: tau.
        cross_weight: g, the share of the other view.
        smoothing: Share of the labels' smoothing; None for none and weights by position.
        loss_weight: w.

    Source: docs/methods/eagle.md 4.3, 4.5.
    """

    @ranges(temperature=POSITIVE, cross_weight=SHARE, smoothing=SHARE, loss_weight=WEIGHT)
    def __init__(
        self,
        temperature: float = 0.07,
        cross_weight: float = 0.7,
        smoothing: float | None = None,
        loss_weight: float = 0.85,
    ) -> None:
        super().__init__()
        self.temperature, self.smoothing = temperature, smoothing
        self.cross_weight, self.loss_weight = cross_weight, loss_weight

    def forward(self, rows: Tensor, other: Tensor, labels: Tensor, weights: Tensor, count: int) -> Tensor:
        """The loss of one view.

        Args:
            rows: z, (R, D), unit rows of all positions of the batch.
            other: z', (R, D), the same positions in the other view.
            labels: y, int64 (R,), of ``rows``.
            weights: w_p, (R,); no gradient.
            count: M, the number of labels.

        Returns:
            Scalar, in float32 or wider.
        """
        with torch.autocast(rows.device.type, enabled=False):
            rows, other, weights = widened(rows), widened(other), widened(weights)
            index, present = medoids(rows, labels, count)
            centroids = rows[index] / self.temperature
            own, cross = (
                self._entropy((one @ centroids.t()).masked_fill(~present, -torch.inf), labels, weights, present)
                for one in (rows, other)
            )
            return self.loss_weight / 2 * ((1 - self.cross_weight) * own + self.cross_weight * cross)

    def _entropy(self, logits: Tensor, labels: Tensor, weights: Tensor, present: Tensor) -> Tensor:
        logs = torch.log_softmax(logits, dim=1)
        own = logs.gather(1, labels[:, None])[:, 0]
        if self.smoothing is None:
            return -(weights * own).mean()
        spread = self.smoothing / (present.sum() - 1).clamp_min(1)
        others = logs.masked_fill(~present, 0).sum(1) - own
        return -((1 - self.smoothing) * own + spread * others).mean() * weights.mean()
