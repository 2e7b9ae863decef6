"""Max-transport against the naive formula, gradients and memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from omh_mmseg.transport import matching, matching_distance
from omh_mmseg.transport.matching import condition_plan, transport_activations


def naive(activations: torch.Tensor, plan: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.stack([(row * plan[:, j]).max() for j in range(plan.shape[1])]) for row in activations])


def activations(positions: int, clusters: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(3 * torch.randn(positions, clusters, generator=generator, dtype=torch.float64), 1)


def random_plan(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    plan = torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    return plan / plan.sum()


@settings(max_examples=30, deadline=None)
@given(
    positions=st.integers(1, 20),
    lower=st.integers(1, 7),
    higher=st.integers(1, 7),
    chunk_elements=st.integers(1, 200),
    seed=st.integers(0, 10**6),
)
def test_equals_the_naive_formula(positions: int, lower: int, higher: int, chunk_elements: int, seed: int) -> None:
    a, plan = activations(positions, lower, seed), random_plan(lower, higher, seed + 1)
    assert torch.equal(transport_activations(a, plan, chunk_elements), naive(a, plan))


@pytest.mark.parametrize('chunk_elements', [1, 17, 10**6])
def test_gradients_equal_those_of_the_naive_formula(chunk_elements: int) -> None:
    weights = torch.randn(11, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    results = []
    for function in (naive, lambda a, plan: transport_activations(a, plan, chunk_elements)):
        a, plan = activations(11, 6, 1).requires_grad_(), random_plan(6, 4, 2).requires_grad_()
        (function(a, plan) * weights).sum().backward()
        results.append((a.grad, plan.grad))
    for ours, reference in zip(*results):
        torch.testing.assert_close(ours, reference)


def test_gradcheck() -> None:
    a, plan = activations(7, 5, 0).requires_grad_(), random_plan(5, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, p: transport_activations(a, p, 30), (a, plan))


@pytest.mark.parametrize('direction', ['fine_to_coarse', 'coarse_to_fine', 'both'])
@pytest.mark.parametrize('conditioning', ['row', 'none'])
def test_distance_is_the_formula_of_the_specification(direction: str, conditioning: str) -> None:
    coarse, fine, plan = activations(9, 3, 0), activations(9, 5, 1), random_plan(3, 5, 2)
    expected = []
    if direction != 'coarse_to_fine':
        conditioned = plan.t() / plan.sum(0)[:, None] if conditioning == 'row' else plan.t()
        expected.append((naive(fine, conditioned) - coarse).abs().sum(1).mean())
    if direction != 'fine_to_coarse':
        conditioned = plan / plan.sum(1)[:, None] if conditioning == 'row' else plan
        expected.append((naive(coarse, conditioned) - fine).abs().sum(1).mean())
    actual = matching_distance(coarse, fine, plan, direction, conditioning)
    torch.testing.assert_close(actual, sum(expected) / len(expected))


@pytest.mark.parametrize('direction', ['fine_to_coarse', 'coarse_to_fine', 'both'])
def test_gradcheck_of_the_distance(direction: str) -> None:
    inputs = activations(6, 3, 0), activations(6, 5, 1), random_plan(3, 5, 2)
    inputs = tuple(value.requires_grad_() for value in inputs)
    assert torch.autograd.gradcheck(lambda c, f, p: matching_distance(c, f, p, direction), inputs)


def test_perfect_hierarchy_costs_nothing() -> None:
    parents = torch.tensor([0, 0, 1, 1, 2, 2])
    plan = torch.nn.functional.one_hot(parents, 3).double().t() / 6
    fine = torch.eye(6, dtype=torch.float64)
    coarse = torch.nn.functional.one_hot(parents, 3).double()
    assert float(matching_distance(coarse, fine, plan)) == 0
    assert float(matching_distance(coarse.roll(1, 1), fine, plan)) == 2


class _LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        result = function(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else (result,):
            if isinstance(item, torch.Tensor):
                self.elements = max(self.elements, item.numel())
        return result


def test_no_tensor_grows_with_the_product_of_all_sizes() -> None:
    positions, lower, higher, chunk_elements = 500, 12, 10, 1200
    a, plan = activations(positions, lower, 0).requires_grad_(), random_plan(lower, higher, 1).requires_grad_()
    with _LargestTensor() as seen:
        transport_activations(a, plan, chunk_elements).sum().backward()
    assert positions * higher <= seen.elements <= positions * lower


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r'\(4, 3\) and \(2, 5\)'):
        transport_activations(torch.rand(4, 3), torch.rand(2, 5))
    with pytest.raises(ValueError, match="conditioning must be one of .*'column'"):
        condition_plan(torch.rand(2, 3), 'column')
    with pytest.raises(ValueError, match="direction must be one of .*'up'"):
        matching_distance(torch.rand(4, 2), torch.rand(4, 3), torch.rand(2, 3), 'up')


@pytest.mark.parametrize('direction', ['fine_to_coarse', 'coarse_to_fine'])
@pytest.mark.parametrize('target', ['lower', 'higher'])
def test_targets_get_no_gradient(direction: str, target: str) -> None:
    coarse, fine = activations(6, 3, 0).requires_grad_(), activations(6, 5, 1).requires_grad_()
    plan = random_plan(3, 5, 2)
    free = matching_distance(coarse, fine, plan, direction)
    bound = matching_distance(coarse, fine, plan, direction, target=target)
    assert torch.equal(free, bound)
    expected = torch.autograd.grad(free, (coarse, fine))
    bound.backward()
    fine_is_target = (direction == 'fine_to_coarse') == (target == 'lower')
    assert (fine if fine_is_target else coarse).grad is None
    moving = 0 if fine_is_target else 1
    torch.testing.assert_close((coarse, fine)[moving].grad, expected[moving])


def test_each_way_has_a_target_of_its_own() -> None:
    coarse, fine = activations(6, 3, 0).requires_grad_(), activations(6, 5, 1).requires_grad_()
    plan = random_plan(3, 5, 2)
    found = torch.autograd.grad(matching_distance(coarse, fine, plan, 'both', target='higher'), (coarse, fine))
    for side, way in enumerate(('coarse_to_fine', 'fine_to_coarse')):
        one = matching_distance(coarse, fine, plan, way, target='higher')
        (gradient,) = torch.autograd.grad(one, (coarse, fine)[side])
        torch.testing.assert_close(found[side], gradient / 2)


def family_plan(dtype: torch.dtype) -> torch.Tensor:
    """Of 40 lower clusters, three or four to each of 12 higher ones."""
    own = torch.nn.functional.one_hot(torch.arange(40) % 12, 12)
    return torch.softmax(12 * own + torch.randn(40, 12, dtype=dtype), dim=1)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('case', ['sparse', 'diffuse', 'ties', 'zeros', 'negative'])
def test_host_and_device_give_the_same(case, dtype) -> None:
    """Bit by bit: what a CPU does and what is done elsewhere, and of clusters that tie the first wins."""
    torch.manual_seed(0)
    activations = torch.softmax(3 * torch.randn(300, 40, dtype=dtype), dim=1)
    plan = torch.rand(40, 12, dtype=dtype) if case == 'diffuse' else family_plan(dtype)
    if case == 'ties':
        activations, plan = activations[:, torch.arange(40) // 2], plan[torch.arange(40) // 4]
    elif case == 'zeros':
        activations = activations * (torch.rand_like(activations) < 0.1)
    elif case == 'negative':
        activations = activations - 0.02
    best, winner = matching._largest(activations.t().contiguous(), plan[:, :, None])
    for elements in (7, 100, 5000, 10**6):
        assert torch.equal(matching._winners_on_host(activations, plan, elements), winner.t().long())
        assert torch.equal(transport_activations(activations, plan, elements), best.t())
    assert torch.equal(best.t(), (activations[:, :, None] * plan).amax(1))
