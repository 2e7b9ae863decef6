"""Centres that follow their positions without an optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor


@torch.no_grad()
def follow_positions(centres: Sequence[Tensor], positions: Tensor, scores: Sequence[Tensor], momentum: float) -> None:
    """Turn each centre in place towards the mean of the positions it wins; one that wins none stays.

    A centre of direction u whose positions have the mean m turns to ``momentum u + (1 - momentum) m`` and keeps its
    length: k-means by cosine, batch by batch. The positions are those of all processes.

    Args:
        centres: (K_l, D) of each level.
        positions: (P, D), of unit length.
        scores: Of each level (P, K_l), cosines where nothing else counts: the centre with the highest wins a position.
        momentum: In [0, 1).
    """
    sizes = [len(level) for level in centres]
    chosen = [torch.zeros_like(one).scatter_(1, one.argmax(1, keepdim=True), 1.0) for one in scores]
    won = torch.cat(chosen, dim=1)  # (P, K_1 + ... + K_N)
    sums = torch.cat([won.t() @ positions, won.sum(0)[:, None]], dim=1)
    dist.all_reduce(sums)
    for level, found in zip(centres, sums.split(sizes)):
        mean, count = found[:, :-1], found[:, -1:]
        length, direction = level.norm(dim=1, keepdim=True), F.normalize(level.to(mean.dtype), dim=1)
        moved = momentum * direction + (1 - momentum) * mean / count.clamp_min(1)
        level.copy_(torch.where(count > 0, F.normalize(moved, dim=1), direction) * length)
