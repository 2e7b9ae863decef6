"""Newton's method on the dual: exact at every lambda, cold and warm, and the plan that Sinkhorn's iterations reach."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omh_mmseg.transport.dual_newton import solve_dual
from omh_mmseg.transport.plan import cosine_cost, entropic_plan

SIZES = ((27, 54), (54, 108))
CHANNELS = 70


def centres(kind: str, rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two levels: independent, parts scattered about their wholes, or all in one narrow bundle."""
    generator = torch.Generator().manual_seed(seed)
    coarse, noise, bundle = (torch.randn(size, CHANNELS, generator=generator).double() for size in (rows, columns, 1))
    if kind == 'random':
        return coarse, noise
    if kind == 'parts':
        return coarse, coarse[torch.arange(columns) % rows] + 0.5 * noise
    return bundle + 0.05 * coarse, bundle + 0.05 * noise


def uneven(size: int, seed: int) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).dirichlet(np.ones(size)) + 1e-4)


@pytest.mark.parametrize('kind', ['random', 'parts', 'bundle'])
@pytest.mark.parametrize('entropy_weight', [0.2, 0.05, 0.01, 0.005])
@pytest.mark.parametrize('sizes', SIZES)
def test_converges_cold_and_warm(kind: str, entropy_weight: float, sizes: tuple[int, int]) -> None:
    for seed in range(3):
        coarse, fine = centres(kind, *sizes, seed)
        cold = entropic_plan(coarse, fine, entropy_weight)
        assert cold.converged and cold.violation < 1e-6 and cold.iterations < 30
        moved = coarse + 5e-3 * torch.sign(centres('random', *sizes, seed + 9)[0])  # as a step of Adam moves them
        warm = entropic_plan(moved, fine, entropy_weight, warm_start=cold.potentials)
        assert warm.converged and warm.violation < 1e-6 and warm.iterations < 30


@pytest.mark.parametrize('entropy_weight', [0.2, 0.05, 0.02])
@pytest.mark.parametrize('sizes', [(9, 18), (18, 9)])
def test_is_the_plan_of_the_log_form_run_to_convergence(entropy_weight: float, sizes: tuple[int, int]) -> None:
    coarse, fine = centres('random', *sizes, 0)
    u, v = uneven(sizes[0], 1), uneven(sizes[1], 2)
    solved = entropic_plan(coarse, fine, entropy_weight, u, v, tolerance=1e-12)
    expected = ot.sinkhorn(
        u / u.sum(), v / v.sum(), cosine_cost(coarse, fine), entropy_weight,
        method='sinkhorn_log', numItermax=100_000, stopThr=1e-14, warn=False,
    )  # fmt: skip
    torch.testing.assert_close(solved.plan, expected, rtol=1e-8, atol=1e-13)
    log_plan = solved.potentials[0][:, None] + solved.potentials[1] - cosine_cost(coarse, fine) / entropy_weight
    torch.testing.assert_close(log_plan.exp(), solved.plan, rtol=1e-9, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 24),
    exponent=st.floats(-4, 1),
    kind=st.sampled_from(['random', 'parts', 'bundle']),
    seed=st.integers(0, 10**6),
)
def test_any_problem_ends_within_its_tolerance(rows: int, columns: int, exponent: float, kind: str, seed: int) -> None:
    cost = cosine_cost(*centres(kind, rows, columns, seed)).numpy()
    u, v = (uneven(size, seed).numpy() for size in (rows, columns))
    solution = solve_dual(cost, 10.0**exponent, u / u.sum(), v / v.sum(), 1e-7, 300)
    assert solution.violation <= 1e-7
    np.testing.assert_allclose(solution.plan.sum(0), v / v.sum(), rtol=1e-12)


def test_a_start_of_another_problem_does_no_harm() -> None:
    coarse, fine = centres('random', 27, 54, 0)
    misled = tuple(1e4 * torch.randn(size, dtype=torch.float64) for size in (27, 54))
    torch.testing.assert_close(
        entropic_plan(coarse, fine, 0.01, warm_start=misled, tolerance=1e-10).plan,
        entropic_plan(coarse, fine, 0.01, tolerance=1e-10).plan,
    )


def test_gradients_of_both_solvers_agree() -> None:
    grads = []
    for solver in ('newton', 'sinkhorn'):
        coarse, fine = (side.requires_grad_() for side in centres('random', 6, 12, 0))
        plan = entropic_plan(
            coarse, fine, 0.1, gradient='solver', solver=solver, tolerance=1e-13, max_iterations=2000
        ).plan
        (plan**2).sum().backward()
        grads.append((coarse.grad, fine.grad))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-12)
