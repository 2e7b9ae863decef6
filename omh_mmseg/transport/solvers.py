"""Solvers of the entropic transport problem, with the same arguments and results."""

from __future__ import annotations

import numpy as np
import ot
import torch
from torch import Tensor

from omh_mmseg.transport.dual_newton import RIDGE, solve_dual

Solved = tuple[Tensor, tuple[Tensor, Tensor], int, float]
"""Plan, potentials, iterations, and the error that the tolerance is for."""


def solve_by_sinkhorn(
    cost: Tensor,
    entropy_weight: float,
    rows: Tensor,
    columns: Tensor,
    tolerance: float,
    max_iterations: int,
    start: tuple[Tensor, Tensor] | None,
) -> Solved:
    """POT's iterations in the log domain; the error is the L2 norm of the deviation of the column sums.

    Args:
        cost: (K_row, K_column); gradients pass through the iterations.
        entropy_weight: lambda.
        rows: Row marginal.
        columns: Column marginal.
        tolerance: Of the error.
        max_iterations: Limit.
        start: Potentials of an earlier plan.
    """
    plan, log = ot.sinkhorn(
        rows,
        columns,
        cost,
        entropy_weight,
        method='sinkhorn_log',
        numItermax=max_iterations,
        stopThr=tolerance,
        warmstart=start,
        log=True,
        warn=False,
    )
    potentials = log['log_u'].detach(), log['log_v'].detach()
    return plan, potentials, int(log['niter']) + 1, float(log['err'][-1].detach())


def solve_by_newton(
    cost: Tensor,
    entropy_weight: float,
    rows: Tensor,
    columns: Tensor,
    tolerance: float,
    max_iterations: int,
    start: tuple[Tensor, Tensor] | None,
    differentiable: bool,
) -> Solved:
    """`solve_dual` on the CPU; the error is the largest relative deviation of a row sum.

    Args:
        cost: (K_row, K_column).
        entropy_weight: lambda.
        rows: Row marginal.
        columns: Column marginal.
        tolerance: Of the error.
        max_iterations: Limit.
        start: Potentials of an earlier plan.
        differentiable: Let gradients of the plan reach the cost, by the implicit function theorem.
    """
    if len(rows) > len(columns):  # the system that is solved has as many unknowns as rows
        turned = None if start is None else start[::-1]
        plan, (second, first), steps, error = solve_by_newton(
            cost.t(), entropy_weight, columns, rows, tolerance, max_iterations, turned, differentiable
        )
        return plan.t(), (first, second), steps, error

    def on_host(tensor: Tensor) -> np.ndarray:
        return tensor.detach().cpu().numpy()

    solution = solve_dual(
        on_host(cost), entropy_weight, on_host(rows), on_host(columns), tolerance, max_iterations,
        None if start is None else on_host(start[0]),
    )  # fmt: skip
    first, second = (torch.as_tensor(one).to(cost) for one in (solution.row_potential, solution.column_potential))
    plan = torch.as_tensor(solution.plan).to(cost)
    if differentiable:
        plan = _implicit_plan(cost, entropy_weight, rows, columns, first)
    return plan, (first, second), solution.steps, solution.violation


def _implicit_plan(cost: Tensor, entropy_weight: float, rows: Tensor, columns: Tensor, potential: Tensor) -> Tensor:
    """The plan of a solved problem, differentiable with respect to the cost.

    One more Newton step from the solution changes nothing; as its curvature is held fixed, its derivative is that of
    the solution by the implicit function theorem.
    """
    logits = potential[:, None] - cost / entropy_weight
    plan = torch.softmax(logits, dim=0) * columns
    with torch.no_grad():
        curvature = torch.diag(plan.sum(1) + RIDGE) - (plan / columns) @ plan.t() + 1 / len(rows) ** 2
    step = torch.linalg.solve(curvature, rows - plan.sum(1))
    return torch.softmax(logits + step[:, None], dim=0) * columns
