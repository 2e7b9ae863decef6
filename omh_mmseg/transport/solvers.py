"""Solvers of the entropic transport problem."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import ot
import torch
from torch import Tensor

from omh_mmseg.transport.dual_newton import RIDGE, solve_dual


class Problem(NamedTuple):
    """What is solved, how exactly, and from where.

    Attributes:
        cost: (K_row, K_column).
        entropy_weight: lambda.
        rows: Row marginal.
        columns: Column marginal.
        tolerance: Of the solver's error.
        max_iterations: Limit.
        start: Potentials of an earlier plan.
    """

    cost: Tensor
    entropy_weight: float
    rows: Tensor
    columns: Tensor
    tolerance: float
    max_iterations: int
    start: tuple[Tensor, Tensor] | None

    def turned(self) -> Problem:
        """The same with rows and columns exchanged."""
        start = None if self.start is None else (self.start[1], self.start[0])
        return self._replace(cost=self.cost.t(), rows=self.columns, columns=self.rows, start=start)


class Solved(NamedTuple):
    """Plan, potentials of rows and columns, iterations, and the error that the tolerance is for."""

    plan: Tensor
    potentials: tuple[Tensor, Tensor]
    iterations: int
    error: float


def solve_by_sinkhorn(problem: Problem) -> Solved:
    """POT's iterations in the log domain, through which gradients pass.

    The error is the L2 norm of what the column sums deviate by.
    """
    plan, log = ot.sinkhorn(
        problem.rows,
        problem.columns,
        problem.cost,
        problem.entropy_weight,
        method='sinkhorn_log',
        numItermax=problem.max_iterations,
        stopThr=problem.tolerance,
        warmstart=problem.start,
        log=True,
        warn=False,
    )
    potentials = log['log_u'].detach(), log['log_v'].detach()
    return Solved(plan, potentials, int(log['niter']) + 1, float(log['err'][-1].detach()))


def solve_by_newton(problem: Problem, differentiable: bool = False) -> Solved:
    """`solve_dual` on the CPU; the error is the largest relative deviation of a row sum.

    Args:
        problem: See there.
        differentiable: Let gradients of the plan reach the cost, by the implicit function theorem.
    """
    if len(problem.rows) > len(problem.columns):  # the system that is solved has as many unknowns as rows
        solved = solve_by_newton(problem.turned(), differentiable)
        return solved._replace(plan=solved.plan.t(), potentials=solved.potentials[::-1])

    def on_host(tensor: Tensor) -> np.ndarray:
        return tensor.detach().cpu().numpy()

    cost = problem.cost
    solution = solve_dual(
        on_host(cost), problem.entropy_weight, on_host(problem.rows), on_host(problem.columns), problem.tolerance,
        problem.max_iterations, None if problem.start is None else on_host(problem.start[0]),
    )  # fmt: skip
    first, second = (torch.as_tensor(one).to(cost) for one in (solution.row_potential, solution.column_potential))
    plan = _implicit_plan(problem, first) if differentiable else torch.as_tensor(solution.plan).to(cost)
    return Solved(plan, (first, second), solution.steps, solution.violation)


def _implicit_plan(problem: Problem, potential: Tensor) -> Tensor:
    """The plan of a solved problem, differentiable with respect to the cost.

    One more Newton step from the solution changes nothing; as its curvature is held fixed, its derivative is that of
    the solution by the implicit function theorem.
    """
    rows, columns = problem.rows, problem.columns
    logits = potential[:, None] - problem.cost / problem.entropy_weight
    plan = torch.softmax(logits, dim=0) * columns
    with torch.no_grad():
        curvature = torch.diag(plan.sum(1) + RIDGE) - (plan / columns) @ plan.t() + 1 / len(rows) ** 2
    step = torch.linalg.solve(curvature, rows - plan.sum(1))
    return torch.softmax(logits + step[:, None], dim=0) * columns
