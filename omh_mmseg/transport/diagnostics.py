"""What must be observable about a plan and about the use of clusters (docs/methods/omh.md 4 and 6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omh_mmseg.transport.checks import check_plan, may_look_at
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
        The figures as Python numbers; of the parents, over the finer clusters that have mass.

    Raises:
        ValueError: The plan is no matrix of masses, or its row marginal is of another length.
    """
    plan = solved.plan.detach().double()
    check_plan(plan.cpu())
    if solved.row_marginal.shape != plan.shape[:1]:
        raise ValueError(f'{tuple(solved.row_marginal.shape)} row marginals for a plan {tuple(plan.shape)}.')
    sparsity = (plan > 0.01 * solved.row_marginal.to(plan)[:, None]).double().mean()
    mass = plan.sum(0)
    parents = torch.special.entr((plan / mass)[:, mass > 0]).sum(0).exp()
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

    Raises:
        ValueError: The assignments are no integers, or, on a CPU, one is no cluster.
    """
    if assignments.is_floating_point() or assignments.is_complex() or assignments.dtype == torch.bool:
        raise ValueError(f'assignments must be integers, the numbers of clusters; got {assignments.dtype}.')
    if num_clusters < 1:
        raise ValueError(f'num_clusters must be at least 1; got {num_clusters}.')
    numbers = assignments.reshape(-1)
    if may_look_at(numbers) and len(numbers):
        low, high = (int(value) for value in torch.aminmax(numbers))
        if low < 0 or high >= num_clusters:
            raise ValueError(f'assignments must be in 0..{num_clusters - 1}; got {low} to {high}.')
    # bincount would make the host wait for the largest number.
    ones = torch.ones_like(numbers, dtype=torch.float32)
    counts = ones.new_zeros(num_clusters).scatter_add_(0, numbers.long(), ones)
    return counts / counts.sum().clamp_min(1)
