"""Plans: marginals, symmetry, limits, gradients, delicate settings, errors."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omh_mmseg.transport import hierarchy_plans
from omh_mmseg.transport.plan import SOLVERS, cosine_cost, entropic_plan


def centres(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    entropy_weight=st.sampled_from([0.02, 0.05, 0.1, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_marginals_hold(rows: int, columns: int, entropy_weight: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(rows, generator=generator, dtype=torch.float64) + 0.1
    v = torch.rand(columns, generator=generator, dtype=torch.float64) + 0.1
    solved = entropic_plan(
        centres(rows, 5, seed=seed), centres(columns, 5, seed=seed + 1), entropy_weight, u, v,
        tolerance=1e-9, max_iterations=20000,
    )
    assert bool((solved.plan >= 0).all())
    torch.testing.assert_close(solved.plan.sum(1), u / u.sum(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(solved.plan.sum(0), v / v.sum(), rtol=1e-6, atol=1e-8)
    assert solved.converged and solved.violation < 1e-5


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_permutation_equivariance(seed: int) -> None:
    a, b = centres(5, 6, seed=seed), centres(8, 6, seed=seed + 1)
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randperm(5, generator=generator), torch.randperm(8, generator=generator)
    plan = entropic_plan(a, b, 0.05, tolerance=1e-10).plan
    moved = entropic_plan(a[p], b[q], 0.05, tolerance=1e-10).plan
    torch.testing.assert_close(moved, plan[p][:, q], rtol=1e-6, atol=1e-9)


def test_only_directions_matter() -> None:
    a, b = centres(4, 6), centres(7, 6, seed=1)
    scale = torch.linspace(0.1, 30, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(entropic_plan(a, b).plan, entropic_plan(5 * a, scale * b).plan)


def test_small_lambda_approaches_the_assignment() -> None:
    a, b = centres(6, 12), centres(12, 12, seed=1)
    exact = ot.emd(np.full(6, 1 / 6), np.full(12, 1 / 12), cosine_cost(a, b).numpy())
    distances = []
    for entropy_weight in (0.5, 0.05, 0.005, 0.002):
        plan = entropic_plan(a, b, entropy_weight, max_iterations=20_000, tolerance=1e-6).plan.numpy()
        distances.append(np.abs(plan - exact).sum())
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.5 and distances[-1] < 0.1


def test_large_lambda_is_the_product_of_the_marginals() -> None:
    plan = entropic_plan(centres(4, 6), centres(8, 6, seed=1), 1e4).plan
    torch.testing.assert_close(plan, torch.full((4, 8), 1 / 32, dtype=torch.float64), rtol=1e-3, atol=0)


@pytest.mark.parametrize('solver', SOLVERS)
@pytest.mark.parametrize('entropy_weight', [0.5, 0.1])
@pytest.mark.parametrize('sizes', [(3, 5), (5, 3)])
def test_gradcheck_through_the_solver(sizes: tuple[int, int], entropy_weight: float, solver: str) -> None:
    a, b = centres(sizes[0], 4).requires_grad_(), centres(sizes[1], 4, seed=1).requires_grad_()

    def plan(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return entropic_plan(
            a, b, entropy_weight, gradient='solver', solver=solver, tolerance=1e-14, max_iterations=60
        ).plan

    assert torch.autograd.gradcheck(plan, (a, b))


def test_detached_plan_has_no_gradient() -> None:
    a = centres(3, 4).requires_grad_()
    assert not entropic_plan(a, centres(5, 4), gradient='detach').plan.requires_grad
    assert entropic_plan(a, centres(5, 4), gradient='solver').plan.requires_grad


@pytest.mark.parametrize(
    ('solver', 'solver_dtype'),
    [('newton', torch.float64), ('sinkhorn', torch.float32), ('sinkhorn', torch.float64)],
)
@pytest.mark.parametrize('entropy_weight', [0.01, 0.005])
@pytest.mark.parametrize('spread', [1.0, 1e-4, 0.0])
def test_delicate_settings_stay_finite(
    entropy_weight: float, spread: float, solver: str, solver_dtype: torch.dtype
) -> None:
    base = centres(1, 16, dtype=torch.float32)
    pair = [(base + spread * centres(size, 16, seed=size, dtype=torch.float32)).requires_grad_() for size in (6, 12)]
    solved = entropic_plan(*pair, entropy_weight, gradient='solver', solver=solver, solver_dtype=solver_dtype)
    (solved.plan**2).sum().backward()
    assert bool(torch.isfinite(solved.plan).all()) and solved.plan.dtype == torch.float32
    assert all(bool(torch.isfinite(side.grad).all()) for side in pair)
    assert float(solved.plan.detach().sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_solver(dtype: torch.dtype) -> None:
    a, b = centres(6, 16, dtype=torch.float32), centres(12, 16, seed=1, dtype=torch.float32)
    plain = entropic_plan(a, b, 0.01)
    with torch.autocast('cpu', dtype=dtype):
        cast = entropic_plan(a, b, 0.01)
    assert torch.equal(plain.plan, cast.plan)


def test_half_precision_centres_are_widened() -> None:
    a, b = centres(4, 8, dtype=torch.float32).half(), centres(8, 8, seed=1, dtype=torch.float32).half()
    solved = entropic_plan(a, b)
    assert solved.plan.dtype == torch.float32 and solved.converged


def test_warm_start_gives_the_same_plan_sooner() -> None:
    a, b = centres(27, 70), centres(54, 70, seed=1)
    cold = entropic_plan(a, b, 0.02, tolerance=1e-9, max_iterations=5000)
    moved = a + 1e-3 * centres(27, 70, seed=2)
    again = entropic_plan(moved, b, 0.02, tolerance=1e-9, max_iterations=5000)
    warm = entropic_plan(moved, b, 0.02, tolerance=1e-9, max_iterations=5000, warm_start=cold.potentials)
    assert warm.iterations < again.iterations
    torch.testing.assert_close(warm.plan, again.plan, rtol=1e-5, atol=1e-9)


def test_poisoned_warm_start_is_ignored() -> None:
    a, b = centres(3, 4), centres(5, 4, seed=1)
    bad = torch.full((3,), math.nan, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    assert torch.equal(entropic_plan(a, b, warm_start=bad).plan, entropic_plan(a, b).plan)


def test_hierarchy_plans_of_all_pairs() -> None:
    levels = [centres(size, 6, seed=size) for size in (2, 4, 7)]
    plans = hierarchy_plans(levels, 0.05)
    assert [tuple(plan.plan.shape) for plan in plans] == [(2, 4), (4, 7)]
    assert torch.equal(plans[1].plan, entropic_plan(levels[1], levels[2], 0.05).plan)
    assert hierarchy_plans(levels[:1]) == []


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(entropy_weight=0.0), 'entropy_weight must be finite and above 0'),
        (dict(entropy_weight=math.nan), 'entropy_weight'),
        (dict(tolerance=0.0), 'tolerance'),
        (dict(max_iterations=0), 'max_iterations'),
        (dict(gradient='through'), "gradient must be one of .*'through'"),
        (dict(solver_dtype=torch.float32), "solver_dtype must be one of .* with solver='newton'"),
        (dict(solver='sinkhorn', solver_dtype=torch.float16), 'solver_dtype'),
        (dict(solver='simplex'), 'solver must be one of'),
        (dict(row_marginal=torch.ones(4)), r'row_marginal must have shape \(3,\)'),
        (dict(column_marginal=torch.tensor([1.0, 1, 1, 1, 0])), 'column_marginal must be finite and above 0'),
        (dict(warm_start=(torch.zeros(2), torch.zeros(5))), 'warm_start has shapes'),
    ],
)
def test_wrong_arguments(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        entropic_plan(centres(3, 4), centres(5, 4), **change)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r'\(3, 4\) and \(5, 6\)'):
        entropic_plan(centres(3, 4), centres(5, 6))
    with pytest.raises(ValueError, match='2 marginals for 3 levels'):
        hierarchy_plans([centres(2, 3)] * 3, marginals=[torch.ones(2)] * 2)


def test_non_finite_centres_name_the_levels() -> None:
    broken = centres(4, 3).fill_(math.nan)
    with pytest.raises(FloatingPointError, match='levels 2 and 3'):
        hierarchy_plans([centres(2, 3), centres(3, 3), broken])
