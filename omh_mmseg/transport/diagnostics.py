"""What must be observable about a plan and about the use of clusters (docs/methods/omh.md 4 and 6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omh_mmseg.transport.plan import TransportPlan


@dataclass(frozen=True)
class PlanDiagnostics:
    """Figures that separate a useful plan from a degenerate one.

    Attributes:
        sparsity: Share of entries above 1 % of their row's marginal, in (0, 1]; near 1 the plan says nothing.
        parents_mean: Mean over finer clusters of the effective number of parents ``exp(H(T~_j))``, in [1, K_coarse].
        parents_max: Maximum of the same.
        violation: Largest relative deviation of a row or column sum from its marginal.
        iterations: Solver iterations.
    """

    sparsity: float
    parents_mean: float
    parents_max: float
    violation: float
    iterations: int


def diagnose_plan(solved: TransportPlan) -> PlanDiagnostics:
    """Diagnostics of one plan with the coarser level in its rows.

    The sparsity follows docs/methods/omh.md 4: entries are compared with their row's marginal. The effective number of
    parents conditions on the finer cluster, which is the one that has parents.

    Args:
        solved: A plan of shape (K_coarse, K_fine).

    Returns:
        The figures as Python numbers.
    """
    plan = solved.plan.detach().double()
    sparsity = (plan > 0.01 * solved.row_marginal.to(plan)[:, None]).double().mean()
    given_child = plan / plan.sum(0, keepdim=True)
    parents = torch.special.entr(given_child).sum(0).exp()
    return PlanDiagnostics(
        sparsity=float(sparsity),
        parents_mean=float(parents.mean()),
        parents_max=float(parents.max()),
        violation=solved.violation,
        iterations=solved.iterations,
    )


def cluster_usage(assignments: Tensor, num_clusters: int) -> Tensor:
    """Share of positions that each cluster wins.

    Args:
        assignments: Cluster numbers of any shape, integer dtype.
        num_clusters: K.

    Returns:
        Shares, shape (K,), float32, summing to 1.
    """
    numbers = assignments.reshape(-1)
    # bincount would make the host wait for the largest number.
    ones = torch.ones_like(numbers, dtype=torch.float32)
    counts = ones.new_zeros(num_clusters).scatter_add_(0, numbers.long(), ones)
    return counts / counts.sum().clamp_min(1)
