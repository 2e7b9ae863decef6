"""What is watched of a hierarchy while it is trained (OMH.md section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omh_mmseg.transport import TransportPlan, cluster_usage, diagnose_plan


@torch.no_grad()
def hierarchy_figures(similarities: Sequence[Tensor], plans: Sequence[TransportPlan]) -> dict[str, Tensor]:
    """Share of the clusters that win a position of the batch per level, and diagnostics per plan.

    Args:
        similarities: Of each level, coarsest first, (P, K_l).
        plans: Of each pair of neighbouring levels.

    Returns:
        Scalars ``omh_used_1``, ..., ``omh_sparsity_12``, ...
    """
    figures: dict[str, Tensor] = {}
    for level, similarity in enumerate(similarities, start=1):
        usage = cluster_usage(similarity.argmax(1), similarity.shape[1])
        figures[f'omh_used_{level}'] = (usage > 0).float().mean()
    for level, plan in enumerate(plans, start=1):
        diagnostics = diagnose_plan(plan)
        for name in ('sparsity', 'parents_mean', 'parents_max', 'violation', 'iterations'):
            value = float(getattr(diagnostics, name))
            figures[f'omh_{name}_{level}{level + 1}'] = torch.tensor(value)
    return figures
