"""Masks of an image from its frozen features, by one principal component after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.models.utils.eigenvectors import largest_eigenvectors
from omh_mmseg.utils.precision import widened

NO_PROPOSAL = 255
"""Of a map of proposals: the pixel belongs to none."""
MOST = NO_PROPOSAL - 1
COVERED = 0.95
GAIN = 10.0


def principal_masks(
    features: Tensor, threshold: float, most: int = MOST, components: Sequence[Tensor] | None = None
) -> Tensor:
    r"""Disjoint soft masks of one image.

    While less than `COVERED` of the grid belongs to a mask, and until there are ``most``: with v the first principal
    component of the features that are free, and the unit features :math:`\hat f`,

    .. math:: j = \arg\max_i [i\ free] \langle v, \hat f_i \rangle, \quad s_i = \langle \hat f_j, \hat f_i \rangle,

    free positions with :math:`s_i \ge \psi \max s` become the next mask, of values :math:`s_i / \max s`. The component
    is centred and weighs the features as they are long; the similarities are neither (docs/methods/primaps.md 11.2).
    Its sign, which decides j, is such that the largest similarity by amount is positive (11.1: our choice).

    Args:
        features: f, (C, h, w).
        threshold: psi, in (0, 1).
        most: Largest number of masks.
        components: v of each mask with its sign, in place of ours; as many masks are made at most.

    Returns:
        Masks (n, h, w).

    Source: docs/methods/primaps.md 3.
    """
    rows = widened(features.flatten(1).t())  # (P, C)
    units = F.normalize(rows, dim=1)
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    # Of the free positions: what leaves is taken off, so that all rounds together cost two products.
    wide = rows.double()
    moment, total, count = wide.t() @ wide, wide.sum(0), len(rows)
    masks: list[Tensor] = []
    rounds = most if components is None else min(most, len(components))
    while count > 0 and len(rows) - count < COVERED * len(rows) and len(masks) < rounds:
        if components is None:
            covariance = moment / count - torch.outer(total / count, total / count)
            component = largest_eigenvectors(covariance[None].nan_to_num(), 1)[0, :, 0]
            scores = torch.where(free, units @ component.to(units), 0)
            scores = scores * scores[scores.abs().argmax()].sign()
        else:
            scores = torch.where(free, units @ components[len(masks)].to(units), 0)
        similarity = torch.where(free, units @ units[scores.argmax()], 0)
        largest = similarity.max()
        if not bool(largest > 0):
            # The reference divides by 0 here (docs/methods/primaps.md 11.3).
            similarity = torch.zeros_like(similarity)
            similarity[free.long().argmax()] = largest = similarity.new_ones(())
        similarity = torch.where(similarity < threshold * largest, 0, similarity) / largest
        taken = similarity > 0
        masks.append(similarity)
        free &= ~taken
        gone = wide[taken]
        moment, total, count = moment - gone.t() @ gone, total - gone.sum(0), count - len(gone)
    return torch.stack(masks).view(-1, *features.shape[1:])


def median3x3(masks: Tensor) -> Tensor:
    """Median (n, h, w) of each position and its eight neighbours, the border reflected."""
    if min(masks.shape[-2:]) < 2:
        return masks
    padded = F.pad(masks[:, None], (1, 1, 1, 1), mode='reflect')
    return F.unfold(padded, 3).view(len(masks), 9, -1).median(1).values.view_as(masks)


def mask_log_probabilities(masks: Tensor) -> Tensor | None:
    r"""Log-probabilities (n + 1, h, w) of no mask and of each of the masks (n, h, w); None where none is left.

    With :math:`m_k = \min(10\, median(s_k), 1)`, which is 0 or 1 from psi = 0.1 on, and the background
    :math:`m_0 = clamp(1 - \sum_k m_k, 0, 1)`, they are :math:`\log softmax(m_0, ..., m_n)`.

    Source: docs/methods/primaps.md 3.
    """
    clean = (GAIN * median3x3(masks)).clamp_max(1)
    present = clean > 0
    if not bool(present.any()):
        return None
    background = (clean[present].mean() - clean.sum(0)).clamp(0, 1)
    return torch.log_softmax(torch.cat([background[None], clean]), dim=0)


def assign_proposals(classes: Tensor, proposals: Tensor, num_classes: int) -> Tensor:
    """The most frequent class inside each proposal, the smallest of several.

    Args:
        classes: (B, H, W), in 0..K-1.
        proposals: (B, H, W), numbers 0..255; `NO_PROPOSAL` for none.
        num_classes: K.

    Returns:
        (B, H, W) int64, -1 where there is none.

    Source: docs/methods/primaps.md 5.1.
    """
    ids = proposals.flatten(1).long()
    rows = torch.arange(len(ids), device=ids.device)[:, None] * (NO_PROPOSAL + 1) + ids
    counts = torch.zeros(len(ids) * (NO_PROPOSAL + 1) * num_classes, dtype=torch.long, device=ids.device)
    places = (rows * num_classes + classes.flatten(1)).flatten()
    counts.scatter_add_(0, places, torch.ones_like(places))
    # Of equal counts the first has the largest key, on every device.
    keys = counts.view(-1, num_classes) * num_classes - torch.arange(num_classes, device=ids.device)
    winners = keys.argmax(1)
    return torch.where(ids == NO_PROPOSAL, -1, winners[rows]).view_as(classes)
