"""Newton's method on the dual of entropic optimal transport, for the small problems between cluster centres."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FAR = 0.5
"""Violation above which a start counts as cold, and to which the solves at larger lambda are taken."""
EASY = 0.1
"""Lambda, per unit of cost, from which a cold start is a good one."""
LONGEST_STEP = 10.0
"""Largest change of a potential in one step: far from the optimum the Newton direction holds close by only."""
SHORTEST_STEP = 2.0**-20
RIDGE = 1e-13


class Solution(NamedTuple):
    """Plan (K_row, K_column), log-scalings (K_row,) and (K_column,), Newton steps, largest relative violation."""

    plan: np.ndarray
    row_potential: np.ndarray
    column_potential: np.ndarray
    steps: int
    violation: float


def solve_dual(
    cost: np.ndarray,
    entropy_weight: float,
    row_marginal: np.ndarray,
    column_marginal: np.ndarray,
    tolerance: float,
    max_steps: int,
    start: np.ndarray | None = None,
) -> Solution:
    r"""Plan whose row sums deviate from the marginal by at most ``tolerance``, relatively; its column sums are exact.

    With the column potentials eliminated, :math:`\beta_j = \log v_j - \log\sum_i e^{\alpha_i - M_{ij} / \lambda}`, the
    dual is concave in the row potentials alone:

    .. math::
        F(\alpha) = u^\top \alpha - \sum_j v_j \log \sum_i e^{\alpha_i - M_{ij} / \lambda}, \quad
        \nabla F = u - T 1, \quad -\nabla^2 F = \mathrm{diag}(T 1) - T\, \mathrm{diag}(v)^{-1} T^\top

    Newton's method with a line search solves it in a few steps at any lambda, where Sinkhorn's iterations grow as
    1 / lambda. A cold start at a small lambda goes through larger ones, each half of the one before.

    Args:
        cost: Shape (K_row, K_column), float64; quick where rows are not more than columns.
        entropy_weight: lambda > 0.
        row_marginal: Positive, sum 1.
        column_marginal: Positive, sum 1.
        tolerance: Above 0.
        max_steps: Of Newton's method, at this lambda.
        start: Row potential of a similar problem, shape (K_row,).
    """
    problem = _Dual(cost, row_marginal, column_marginal)
    point = problem.at(np.zeros(len(cost)) if start is None else start - start.mean(), entropy_weight)
    if not point.violation < FAR:
        weight = entropy_weight * 2 ** max(0, np.floor(np.log2(EASY * max(np.ptp(cost), RIDGE) / entropy_weight)))
        point = problem.at(np.zeros(len(cost)), weight)
        while weight > entropy_weight:
            point, _ = problem.ascend(point, weight, FAR, max_steps)
            weight /= 2
            point = problem.at(2 * point.potential, weight)
    point, steps = problem.ascend(point, entropy_weight, tolerance, max_steps)
    return Solution(point.plan, point.potential, point.column_potential, steps, point.violation)


class _Point(NamedTuple):
    potential: np.ndarray
    column_potential: np.ndarray
    plan: np.ndarray
    value: float
    gradient: np.ndarray
    violation: float


class _Dual:
    def __init__(self, cost: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
        self.cost, self.rows, self.columns = cost, rows, columns

    def at(self, potential: np.ndarray, weight: float) -> _Point:
        logits = potential[:, None] - self.cost / weight
        top = logits.max(0)
        plan = np.exp(logits - top)
        total = plan.sum(0)
        log_total = top + np.log(total)
        plan *= self.columns / total
        gradient = self.rows - plan.sum(1)
        value = float(self.rows @ potential - self.columns @ log_total)
        return _Point(
            potential, np.log(self.columns) - log_total, plan, value, gradient,
            float(np.abs(gradient / self.rows).max()),
        )  # fmt: skip

    def ascend(self, point: _Point, weight: float, tolerance: float, max_steps: int) -> tuple[_Point, int]:
        size = len(self.rows)
        for step in range(max_steps):
            if not point.violation > tolerance:  # NaN ends it, too
                return point, step
            curvature = -(point.plan / self.columns) @ point.plan.T
            # The dual does not change where a constant is added: curvature is given to that direction, and rounding
            # must not make any other one negative.
            curvature += 1 / size**2
            curvature.flat[:: size + 1] += self.rows - point.gradient + RIDGE
            direction = np.linalg.solve(curvature, point.gradient)
            length = min(1.0, LONGEST_STEP / np.abs(direction).max())
            slope = float(point.gradient @ direction)
            while True:
                trial = self.at(point.potential + length * direction, weight)
                # Close to the optimum rounding hides the gain in value, but not that in violation.
                if trial.value >= point.value + 1e-4 * length * slope or trial.violation < point.violation / 2:
                    break
                length /= 2
                if length < SHORTEST_STEP:
                    return point, step
            point = trial
        return point, max_steps
