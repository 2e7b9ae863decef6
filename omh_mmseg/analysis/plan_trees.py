"""The tree of a head's centres, under the marginals that its plans are solved with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from omh_mmseg.choices import MARGINALS, UNIFORM, USAGE
from omh_mmseg.models.omh import OMHHead
from omh_mmseg.models.omh.plan_solver import MARGINAL_FLOOR
from omh_mmseg.transport import Hierarchy, hierarchy_plans

DEFAULT_MARGINALS = MARGINALS[0]
MAX_ITERATIONS = 20000


def usage_shares(overlaps: Sequence[np.ndarray]) -> list[Tensor]:
    """Shares of the pixels that the clusters of each level take.

    Args:
        overlaps: Per level pair the pixels of each coarser and finer cluster, (K_l, K_{l+1}).

    Returns:
        (K_l,) per level, each summing to 1 and above 0: an empty cluster has a thousandth of the mean share, as in
        `PlanSolver`, because without mass it would have no parent. Nothing without a pair of levels.

    Raises:
        ValueError: No pixel was counted.
    """
    if not len(overlaps):
        return []
    pixels = [overlaps[0].sum(axis=1), *(table.sum(axis=0) for table in overlaps)]
    if not pixels[0].any():
        raise ValueError('no pixel was counted, and the marginals by usage are shares of pixels; give images')
    shares = [torch.from_numpy(level / level.sum()) for level in pixels]
    shares = [level.clamp_min(MARGINAL_FLOOR / len(level)) for level in shares]
    return [level / level.sum() for level in shares]


@torch.no_grad()
def plan_tree(centres: Sequence[Tensor], entropy_weight: float, marginals: Sequence[Tensor] | None) -> Hierarchy:
    """The tree of given centres.

    Args:
        centres: (K_l, D) per level, coarsest first.
        entropy_weight: Lambda of the plans.
        marginals: (K_l,) per level; uniform if None.
    """
    plans = hierarchy_plans(
        [level.detach().cpu() for level in centres], entropy_weight, marginals, max_iterations=MAX_ITERATIONS
    )
    return Hierarchy.from_plans([len(level) for level in centres], [plan.plan for plan in plans])


def plan_trees(head: OMHHead, overlaps: Sequence[np.ndarray]) -> dict[str, Hierarchy]:
    """The trees of a head by the marginals of their plans.

    Args:
        head: With its centres.
        overlaps: See `usage_shares`.

    Returns:
        `MARGINALS` -> tree, and, of a head that was trained with others, theirs.
    """
    solved = {
        USAGE: plan_tree(list(head.centres), head.plan.entropy_weight, usage_shares(overlaps) or None),
        UNIFORM: plan_tree(list(head.centres), head.plan.entropy_weight, None),
    }
    return solved if head.plan.marginal in solved else solved | {head.plan.marginal: head.hierarchy()}
