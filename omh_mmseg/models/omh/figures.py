"""Figures to watch while OMH trains (docs/methods/omh.md 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omh_mmseg.transport import cluster_usage


@torch.no_grad()
def usage_figures(winners: Sequence[Tensor], sizes: Sequence[int]) -> dict[str, Tensor]:
    """Share of the K_l clusters that win a position of the batch, ``omh_used_1``, ..., from winners (P,) by level."""
    used = [cluster_usage(one, size) > 0 for one, size in zip(winners, sizes)]
    return {f'omh_used_{level}': clusters.float().mean() for level, clusters in enumerate(used, start=1)}
