"""What is no plan, no activation or no centre is refused, and what is one gives true figures."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omh_mmseg.transport import Hierarchy, TransportPlan, cluster_usage, diagnose_plan, matching_distance
from omh_mmseg.transport.matching import condition_plan, transport_activations
from omh_mmseg.transport.plan import entropic_plan, hierarchy_plans

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
NO_FLOATS = [torch.int32, torch.int64, torch.uint8, torch.bool, torch.complex64]


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).add(0.05).to(dtype)


def softmax(positions: int, clusters: int, seed: int = 0) -> Tensor:
    return torch.softmax(3 * numbers(positions, clusters, seed=seed), 1)


def plan(rows: int, columns: int, seed: int = 0) -> Tensor:
    values = numbers(rows, columns, seed=seed)
    return values / values.sum()


# ---- activations and plans


@pytest.mark.parametrize('dtype', NO_FLOATS)
def test_integers_are_no_activations_and_no_plans(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match='activations must be .*floating-point'):
        transport_activations(torch.ones(4, 3).to(dtype), plan(3, 2))
    with pytest.raises(ValueError, match='plan must be .*floating-point'):
        transport_activations(softmax(4, 3), torch.ones(3, 2).to(dtype))
    with pytest.raises(ValueError, match='fine_activations must be .*floating-point'):
        matching_distance(softmax(4, 3), torch.ones(4, 5).to(dtype), plan(3, 5))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.integers(1, 9), st.integers(0, 10**6))
def test_any_two_floats_give_true_figures(first: torch.dtype, second: torch.dtype, count: int, seed: int) -> None:
    a, t = softmax(count, 3, seed).to(first).requires_grad_(), plan(3, 4, seed).to(second).requires_grad_()
    moved = transport_activations(a, t)
    exact = (a.double()[:, :, None] * t.double()).amax(1)
    tolerance = max(torch.finfo(first).eps, torch.finfo(second).eps)
    assert moved.dtype == first
    torch.testing.assert_close(moved.double(), exact, rtol=4 * tolerance, atol=4 * tolerance)
    moved.sum().backward()
    assert a.grad is not None and t.grad is not None and a.grad.dtype == first and t.grad.dtype == second
    assert bool(a.grad.isfinite().all() and t.grad.isfinite().all())


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=3),
    conditioning=st.sampled_from(['row', 'none']),
    direction=st.sampled_from(['fine_to_coarse', 'coarse_to_fine', 'both']),
)  # fmt: skip
def test_shapes_fit_or_are_refused(shapes: list[tuple[int, int]], conditioning: str, direction: str) -> None:
    """One position stands for no other number of positions, nor one cluster for others."""
    coarse, fine, between = (torch.full(shape, 0.25) for shape in shapes)
    fits = between.shape == (coarse.shape[1], fine.shape[1]) and len(coarse) == len(fine)
    if fits and 0 not in coarse.shape + fine.shape:
        assert bool(matching_distance(coarse, fine, between, direction, conditioning).isfinite())
    else:
        with pytest.raises(ValueError, match='do not fit|non-empty'):
            matching_distance(coarse, fine, between, direction, conditioning)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, -1e-6, -1.0])
@settings(max_examples=5, deadline=None)
@given(place=st.integers(0, 14))
def test_a_plan_is_finite_and_not_negative(value: float, place: int) -> None:
    broken = plan(3, 5)
    broken.view(-1)[place] = value
    for function in (
        lambda: condition_plan(broken), lambda: condition_plan(broken, 'none'),
        lambda: transport_activations(softmax(4, 3), broken),
        lambda: matching_distance(softmax(4, 3), softmax(4, 5), broken),
        lambda: diagnose_plan(solved(broken)), lambda: Hierarchy([3, 5], [broken]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match='must be finite, at least 0 and not all 0'):
            function()


def test_no_mass() -> None:
    empty_row, empty_column = plan(3, 4), plan(3, 4)
    empty_row[1], empty_column[:, 2] = 0, 0
    with pytest.raises(ValueError, match='row 1 of the plan has no mass'):
        condition_plan(empty_row)
    assert torch.equal(condition_plan(empty_row, 'none'), empty_row)
    with pytest.raises(ValueError, match='not all 0'):
        condition_plan(torch.zeros(3, 4))
    with pytest.raises(ValueError, match='cluster of level 2 has no mass in the plan, and so no parent'):
        Hierarchy([3, 4], [empty_column])
    figures = diagnose_plan(solved(empty_column))
    assert 1 <= figures.parents_mean <= figures.parents_max <= 3


def test_nan_activations_stay_visible() -> None:
    broken = softmax(4, 3)
    broken[2, 1] = math.nan
    assert transport_activations(broken, plan(3, 2))[2].isnan().all()
    assert bool(matching_distance(broken, softmax(4, 5), plan(3, 5), 'both').isnan())


@pytest.mark.parametrize('chunk', [0, -1])
def test_chunks_hold_something(chunk: int) -> None:
    with pytest.raises(ValueError, match='chunk_elements must be at least 1'):
        transport_activations(softmax(4, 3), plan(3, 2), chunk)


def test_one_device() -> None:
    with pytest.raises(ValueError, match='one device; got activations on meta, plan on cpu'):
        transport_activations(torch.empty(4, 3, device='meta'), plan(3, 2).float())
    with pytest.raises(ValueError, match='one device; got row_centres on meta, column_centres on cpu'):
        entropic_plan(torch.empty(4, 3, device='meta'), numbers(5, 3).float())


# ---- the solver


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        *((dict(tolerance=value), 'tolerance') for value in (math.inf, math.nan, 1.0, -1.0, 0)),
        *((dict(max_iterations=value), 'max_iterations') for value in (0, -3, 2.5, True, math.inf, '3')),
        *((dict(entropy_weight=value), 'entropy_weight') for value in (math.inf, math.nan, 0, -1, True)),
    ],
)  # fmt: skip
def test_numbers_of_the_solver(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f'{message}.* must be'):
        entropic_plan(numbers(3, 4), numbers(5, 4), **change)
    with pytest.raises(ValueError, match=f'{message}.* must be'):
        hierarchy_plans([numbers(3, 4), numbers(5, 4)], **change)


@pytest.mark.parametrize('dtype', NO_FLOATS)
def test_centres_are_floats(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match='Centres must be floating-point numbers'):
        entropic_plan(torch.ones(3, 4).to(dtype), numbers(5, 4))


@settings(max_examples=30, deadline=None)
@given(
    tolerance=st.floats(1e-9, 0.9), iterations=st.integers(1, 30), weight=st.sampled_from([1e-9, 1e-3, 0.05, 1e3]),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_converged_means_that_the_tolerance_is_met(tolerance: float, iterations: int, weight: float, seed: int) -> None:
    result = entropic_plan(
        numbers(3, 4, seed=seed), numbers(5, 4, seed=seed + 1), weight, tolerance=tolerance, max_iterations=iterations
    )
    deviation = (result.plan.sum(0) - result.column_marginal).norm()
    relative = [
        (result.plan.sum(1 - side) - marginal).abs().div(marginal).max()
        for side, marginal in enumerate((result.row_marginal, result.column_marginal))
    ]
    assert result.violation == pytest.approx(float(max(relative)), rel=1e-6, abs=1e-12)
    assert not result.converged or float(deviation) <= tolerance * (1 + 1e-6)


def solved(values: Tensor) -> TransportPlan:
    rows, columns = values.shape
    marginals = torch.full((rows,), 1 / rows), torch.full((columns,), 1 / columns)
    return TransportPlan(values, *marginals, potentials=marginals, iterations=1, violation=0.0, converged=True,
                         entropy_weight=0.1)  # fmt: skip


# ---- the use of clusters and the tree


@pytest.mark.parametrize('wrong', [[0.0, 1.0], [True, False], [0, -1], [0, 3]])
def test_cluster_numbers(wrong: list[Any]) -> None:
    with pytest.raises(ValueError, match=r'assignments must be (integers|in 0\.\.2; got)'):
        cluster_usage(torch.tensor(wrong), 3)
    with pytest.raises(ValueError, match='num_clusters must be at least 1'):
        cluster_usage(torch.tensor([0]), 0)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1), st.sampled_from([torch.uint8, torch.int32, torch.int64]))
def test_usage_is_the_share_of_each_cluster(chosen: list[int], dtype: torch.dtype) -> None:
    usage = cluster_usage(torch.tensor(chosen, dtype=dtype), 5)
    expected = torch.tensor([chosen.count(cluster) / len(chosen) for cluster in range(5)])
    torch.testing.assert_close(usage, expected)


@pytest.mark.parametrize('sizes', [[], [3, 0], [3.0, 5], ['3', 5]])
def test_level_sizes_of_a_tree(sizes: list[Any]) -> None:
    plans = [] if len(sizes) < 2 else [torch.empty(3, int(sizes[1]))]
    with pytest.raises(ValueError, match='Level'):
        Hierarchy(sizes, plans)


def test_a_file_with_a_plan_that_is_none(tmp_path: Any) -> None:
    path = Hierarchy([2, 3], [plan(2, 3)]).to_json(tmp_path / 'hierarchy.json')
    path.write_text(path.read_text().replace('"plans": [\n  [\n   [\n    0.', '"plans": [\n  [\n   [\n    -0.'))
    with pytest.raises(ValueError, match='hierarchy.json is not a hierarchy .*must be finite, at least 0'):
        Hierarchy.from_json(path)
