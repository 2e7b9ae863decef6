"""Entropic transport plans between two sets of cluster centres (docs/methods/omh.md 2.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.transport.checks import check_devices
from omh_mmseg.transport.solvers import Problem, solve_by_newton, solve_by_sinkhorn

PLAN_GRADIENTS = ('detach', 'solver')
SOLVERS = ('newton', 'sinkhorn')
SOLVER_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class TransportPlan:
    """A solved plan together with what is needed to judge it and to warm-start the next one.

    Attributes:
        plan: Transport plan, shape (K_row, K_column), non-negative, summing to 1.
        row_marginal: Prescribed row sums u, shape (K_row,).
        column_marginal: Prescribed column sums v, shape (K_column,).
        potentials: Logarithms of the scaling vectors, shapes (K_row,) and (K_column,), detached, in the solver's dtype.
        iterations: Newton steps, or Sinkhorn iterations, used.
        violation: Largest relative deviation of a row or column sum from its marginal.
        converged: Whether the solver met its tolerance within the iteration limit.
        entropy_weight: The lambda that the plan was solved with.
    """

    plan: Tensor
    row_marginal: Tensor
    column_marginal: Tensor
    potentials: tuple[Tensor, Tensor]
    iterations: int
    violation: float
    converged: bool
    entropy_weight: float


def cosine_cost(row_centres: Tensor, column_centres: Tensor) -> Tensor:
    """Cosine distance ``M_ij = 1 - <n(r_i), n(c_j)>``.

    Args:
        row_centres: Shape (K_row, D).
        column_centres: Shape (K_column, D).

    Returns:
        Cost in [0, 2], shape (K_row, K_column).
    """
    return 1 - F.normalize(row_centres, dim=1) @ F.normalize(column_centres, dim=1).t()


def entropic_plan(
    row_centres: Tensor,
    column_centres: Tensor,
    entropy_weight: float = 0.05,
    row_marginal: Tensor | None = None,
    column_marginal: Tensor | None = None,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    warm_start: tuple[Tensor, Tensor] | None = None,
    gradient: str = 'detach',
    solver: str = 'newton',
    solver_dtype: torch.dtype = torch.float64,
    name: str = 'the two sets of centres',
) -> TransportPlan:
    r"""Entropic plan between two sets of centres under the cosine cost.

    .. math::
        T = \arg\min_T \langle T, M \rangle - \lambda H(T),
        \quad T 1 = u, \quad T^\top 1 = v, \quad M_{ij} = 1 - \langle n(r_i), n(c_j) \rangle

    It has one solution, which `solve_dual` finds in a few steps at any lambda, on the CPU in float64. Sinkhorn's
    iterations, ``ot.sinkhorn(method='sinkhorn_log')``, take hundreds below lambda 0.05 and stay an option; POT's plain
    form returns finite plans with NaN gradients at small lambda. Autocast is switched off around both. Log-domain
    potentials grow as 1 / lambda: below lambda 0.01 their float32 rounding alone exceeds the tolerance.

    Args:
        row_centres: Shape (K_row, D), any floating dtype; directions matter, lengths do not.
        column_centres: Shape (K_column, D).
        entropy_weight: lambda > 0. Small gives a sparse plan, large a dense one.
        row_marginal: u, shape (K_row,), positive; normalised to sum 1. Uniform if None.
        column_marginal: v, shape (K_column,), positive; normalised to sum 1. Uniform if None.
        tolerance: In (0, 1). ``'newton'`` stops when no row or column sum deviates from its marginal by more than this
            share of it, ``'sinkhorn'`` when the L2 norm of the column violation falls below it.
        max_iterations: Limit of the solver's iterations.
        warm_start: ``potentials`` of an earlier plan of the same shape.
        gradient: ``'detach'``, or ``'solver'`` to differentiate: implicitly with ``'newton'``, through the iterations
            with ``'sinkhorn'``.
        solver: ``'newton'`` or ``'sinkhorn'``.
        solver_dtype: torch.float32 or torch.float64; of ``'sinkhorn'`` alone.
        name: What the rows and columns are, for error messages.

    Returns:
        The plan in float32, or in float64 if the row centres are float64.

    Raises:
        ValueError: On arguments outside the ranges above.
        FloatingPointError: If centres, cost or plan are not finite.

    Reference:
        M. Cuturi, Sinkhorn Distances: Lightspeed Computation of Optimal Transport, NeurIPS 2013.
    """
    _check_arguments(row_centres, column_centres, entropy_weight, tolerance, max_iterations, gradient)
    _check_solver(solver, solver_dtype)
    through_solver = gradient == 'solver' and torch.is_grad_enabled()
    with torch.autocast(row_centres.device.type, enabled=False), torch.set_grad_enabled(through_solver):
        cost = cosine_cost(row_centres.to(solver_dtype), column_centres.to(solver_dtype))
        if not bool(torch.isfinite(cost).all()):
            raise FloatingPointError(
                f'The transport cost between {name} is not finite: the centres hold NaN or infinity. '
                'Lower the learning rate of the centres or find the loss that became non-finite first.'
            )
        rows = _marginal(row_marginal, cost.shape[0], cost, 'row_marginal')
        columns = _marginal(column_marginal, cost.shape[1], cost, 'column_marginal')
        start = _usable(warm_start, cost)
        problem = Problem(cost, entropy_weight, rows, columns, tolerance, max_iterations, start)
        if solver == 'newton':
            solved = solve_by_newton(problem, through_solver)
        else:
            solved = solve_by_sinkhorn(problem)
    exact = solved.plan.detach()
    violation = max(
        float(((exact.sum(1) - rows).abs() / rows).max()), float(((exact.sum(0) - columns).abs() / columns).max())
    )
    if not math.isfinite(violation):
        low, high = float(cost.min()), float(cost.max())
        raise FloatingPointError(
            f'The transport plan between {name} is not finite at entropy_weight={entropy_weight:g} with costs in '
            f'[{low:.3g}, {high:.3g}] and {solver_dtype}. Use a larger entropy_weight (0.01 to 0.1) or float64.'
        )
    out_dtype = torch.float64 if row_centres.dtype == torch.float64 else torch.float32
    return TransportPlan(
        plan=solved.plan.to(out_dtype),
        row_marginal=rows.to(out_dtype),
        column_marginal=columns.to(out_dtype),
        potentials=solved.potentials,
        iterations=solved.iterations,
        violation=violation,
        converged=solved.error < tolerance,
        entropy_weight=float(entropy_weight),
    )


def hierarchy_plans(
    centres: Sequence[Tensor],
    entropy_weight: float = 0.05,
    marginals: Sequence[Tensor] | None = None,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    warm_starts: Sequence[tuple[Tensor, Tensor] | None] | None = None,
    gradient: str = 'detach',
    solver: str = 'newton',
    solver_dtype: torch.dtype = torch.float64,
) -> list[TransportPlan]:
    """Plans of all neighbouring level pairs of a hierarchy.

    Args:
        centres: One tensor (K_l, D) per level, coarsest first.
        entropy_weight: lambda of every pair.
        marginals: One tensor (K_l,) per level, or None for uniform ones.
        tolerance: See `entropic_plan`.
        max_iterations: See `entropic_plan`.
        warm_starts: One pair of potentials (or None) per level pair.
        gradient: See `entropic_plan`.
        solver: See `entropic_plan`.
        solver_dtype: See `entropic_plan`.

    Returns:
        ``len(centres) - 1`` plans; plan l has shape (K_l, K_{l+1}).

    Raises:
        ValueError: If the lengths of the sequences do not fit, and as `entropic_plan`.
        FloatingPointError: As `entropic_plan`, naming the level pair.
    """
    pairs = len(centres) - 1
    if pairs < 0:
        raise ValueError('centres is empty; give one tensor (K_l, D) per level.')
    if marginals is not None and len(marginals) != len(centres):
        raise ValueError(f'{len(marginals)} marginals for {len(centres)} levels; give one per level or None.')
    if warm_starts is not None and len(warm_starts) != pairs:
        raise ValueError(f'{len(warm_starts)} warm starts for {pairs} level pairs; give one per pair or None.')
    return [
        entropic_plan(
            centres[level],
            centres[level + 1],
            entropy_weight,
            None if marginals is None else marginals[level],
            None if marginals is None else marginals[level + 1],
            tolerance=tolerance,
            max_iterations=max_iterations,
            warm_start=None if warm_starts is None else warm_starts[level],
            gradient=gradient,
            solver=solver,
            solver_dtype=solver_dtype,
            name=f'levels {level + 1} and {level + 2}',
        )
        for level in range(pairs)
    ]


def _check_arguments(
    row_centres: Tensor,
    column_centres: Tensor,
    entropy_weight: float,
    tolerance: float,
    max_iterations: int,
    gradient: str,
) -> None:
    shapes = (tuple(row_centres.shape), tuple(column_centres.shape))
    matrices = row_centres.dim() == 2 and column_centres.dim() == 2
    if not matrices or shapes[0][1] != shapes[1][1] or 0 in shapes[0] + shapes[1]:
        raise ValueError(f'Centres must be non-empty matrices (K, D) of one D; got {shapes[0]} and {shapes[1]}.')
    if isinstance(entropy_weight, bool) or not 0 < entropy_weight < math.inf:
        raise ValueError(f'entropy_weight must be finite and above 0 (0.01 to 0.1 is usual); got {entropy_weight}.')
    if not (row_centres.is_floating_point() and column_centres.is_floating_point()):
        raise ValueError(f'Centres must be floating-point numbers; got {row_centres.dtype} and {column_centres.dtype}.')
    check_devices(row_centres=row_centres, column_centres=column_centres)
    if not 0 < tolerance < 1:
        raise ValueError(f'tolerance, a share of the mass, must be above 0 and below 1; got {tolerance}.')
    if isinstance(max_iterations, bool) or not isinstance(max_iterations, int) or max_iterations < 1:
        raise ValueError(f'max_iterations must be an integer of at least 1; got {max_iterations!r}.')
    if gradient not in PLAN_GRADIENTS:
        raise ValueError(f'gradient must be one of {PLAN_GRADIENTS}; got {gradient!r}.')


def _check_solver(solver: str, dtype: torch.dtype) -> None:
    if solver not in SOLVERS:
        raise ValueError(f'solver must be one of {SOLVERS}; got {solver!r}.')
    accepted = SOLVER_DTYPES if solver == 'sinkhorn' else (torch.float64,)
    if dtype not in accepted:
        raise ValueError(f'solver_dtype must be one of {accepted} with solver={solver!r}; got {dtype}.')


def _marginal(values: Tensor | None, size: int, like: Tensor, name: str) -> Tensor:
    if values is None:
        return torch.full((size,), 1 / size, dtype=like.dtype, device=like.device)
    if values.shape != (size,):
        raise ValueError(f'{name} must have shape ({size},); got {tuple(values.shape)}.')
    values = values.detach().to(like)
    if not bool((torch.isfinite(values) & (values > 0)).all()):
        raise ValueError(
            f'{name} must be finite and above 0 everywhere; its range is '
            f'[{float(values.min()):.3g}, {float(values.max()):.3g}]. Add a small constant before calling.'
        )
    return values / values.sum()


def _usable(warm_start: tuple[Tensor, Tensor] | None, cost: Tensor) -> tuple[Tensor, Tensor] | None:
    if warm_start is None:
        return None
    rows, columns = (potential.detach().to(cost) for potential in warm_start)
    if rows.shape != cost.shape[:1] or columns.shape != cost.shape[1:]:
        raise ValueError(
            f'warm_start has shapes {tuple(rows.shape)} and {tuple(columns.shape)} for a cost of shape '
            f'{tuple(cost.shape)}; pass the potentials of a plan between the same numbers of centres.'
        )
    # The solver adds the potentials to cost / lambda; one non-finite entry would poison every later plan.
    if not bool(torch.isfinite(rows).all() and torch.isfinite(columns).all()):
        return None
    return rows, columns
