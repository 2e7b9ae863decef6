"""Where prototypes on frozen features begin: principal directions, then k-means by cosine."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from mmengine import dist
from torch import Tensor

from omh_mmseg.models.losses.cluster_loss import cluster_loss
from omh_mmseg.models.utils.similarity import code_similarity


@torch.no_grad()
def principal_directions(codes: Iterable[Tensor], count: int) -> Tensor:
    """First principal directions (K, C) of all positions of codes (B, C, h, w), over all processes.

    By the C x C covariance in float64, whatever the number of positions. Each direction has its largest component
    positive (our choice; the sign is arbitrary).

    Args:
        codes: At least one of each process.
        count: K, at most C.

    Raises:
        FloatingPointError: The codes are not finite.

    Source: docs/methods/primaps.md 4.1.
    """
    moments: Tensor | None = None
    for code in codes:
        rows = code.detach().permute(0, 2, 3, 1).flatten(0, 2).double()
        # One matrix for one reduction: moments, sums and the number.
        whole = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        moments = whole.t() @ whole if moments is None else moments.addmm_(whole.t(), whole)
    assert moments is not None
    dist.all_reduce(moments)
    if not bool(torch.isfinite(moments).all()):
        raise FloatingPointError('the codes that prototypes begin from are not finite; look at the backbone weights.')
    number, mean = moments[-1, -1], moments[-1, :-1] / moments[-1, -1]
    covariance = moments[:-1, :-1] / number - torch.outer(mean, mean)
    directions = torch.linalg.eigh(covariance)[1].flip(1)[:, :count].t()
    largest = directions.abs().argmax(1, keepdim=True)
    return directions * directions.gather(1, largest).sign()


def cosine_k_means(directions: Tensor, codes: Iterable[Tensor], lr: float) -> Tensor:
    r"""Directions (K, C) after a step of Adam on each batch of codes (B, C, h, w), on all processes alike.

    The loss is :math:`-\frac{1}{P} \sum_p \max_k \cos(f_p, v_k)` over all positions of a batch.

    Source: docs/methods/primaps.md 4.2.
    """
    moved = directions.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=lr)
    for code in codes:
        (moved.grad,) = torch.autograd.grad(cluster_loss(code_similarity(code.detach(), moved)), moved)
        dist.all_reduce(moved.grad, op='mean')
        optimizer.step()
    return moved.detach()
