"""Figures to watch while OMH trains (docs/methods/omh.md 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omh_mmseg.transport import cluster_usage


@torch.no_grad()
def usage_figures(similarities: Sequence[Tensor]) -> dict[str, Tensor]:
    """Share of the clusters that win a position of the batch, ``omh_used_1``, ..., from (P, K_l) of each level."""
    used = [cluster_usage(similarity.argmax(1), similarity.shape[1]) > 0 for similarity in similarities]
    return {f'omh_used_{level}': clusters.float().mean() for level, clusters in enumerate(used, start=1)}
