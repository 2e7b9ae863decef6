from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omh_mmseg.models.decode_heads import PrototypeHead
from omh_mmseg.models.losses import SmoothnessEnergyLoss
from omh_mmseg.registry import MODELS

# Classes and shifts that the golden arrays were made with (docs/methods/smooseg.md 4.5).
ROWS = dict(coco=(27, -0.02, 0.48), cityscapes=(27, -0.02, 0.5), potsdam=(3, 0.1, 0.5))


def straightforward(
    features: Tensor, assignments: Tensor, permutation: Tensor, shifts: tuple[float, float], pointwise: bool
) -> list[Tensor]:
    """docs/methods/smooseg.md 3C.3 with all pairs of positions on five explicit axes."""
    f, y = F.normalize(features.detach(), dim=1, eps=1e-10), F.normalize(assignments, dim=1, eps=1e-10)
    energies = []
    for (other_f, other_y), shift in zip(((f, y), (f[permutation], y[permutation])), shifts):
        closeness = torch.einsum('nchw,ncij->nhwij', f, other_f)
        if pointwise:
            mean = closeness.mean()
            closeness = closeness - closeness.mean((3, 4), keepdim=True)
            closeness = closeness - closeness.mean() + mean
        delta = 1 - torch.einsum('nkhw,nkij->nhwij', y, other_y)
        energies.append(((closeness - shift) * delta).mean())
    return energies


def both_forms(
    features: Tensor, logits: Tensor, permutation: Tensor, shifts: tuple[float, float], pointwise: bool
) -> list[tuple[list[Tensor], Tensor]]:
    """The two energies and the gradient of their weighted sum on the logits, by the loss and by all pairs."""
    results = []
    loss = SmoothnessEnergyLoss(*shifts, pointwise)
    for form in (
        lambda y: list(loss(features, y, permutation).values()),
        lambda y: straightforward(features, y, permutation, shifts, pointwise),
    ):
        leaf = logits.clone().requires_grad_()
        energies = form(leaf.softmax(1))
        (energies[0] + 0.7 * energies[1]).backward()
        results.append(([energy.detach() for energy in energies], leaf.grad))
    return results


@pytest.mark.golden
@pytest.mark.parametrize('row', ROWS)
def test_equals_the_reference(golden, row):
    """Energy, data term, their gradients and the teacher's step."""
    arrays = {key.removeprefix(f'{row}/'): value for key, value in golden('smooseg').items() if key.startswith(row)}
    classes, within, across = ROWS[row]
    head = PrototypeHead(arrays['code'].shape[1], classes)
    with torch.no_grad():
        head.student.copy_(torch.tensor(arrays['local'])), head.centres.copy_(torch.tensor(arrays['global']))
    code = torch.tensor(arrays['code'], requires_grad=True)
    terms = SmoothnessEnergyLoss(within, across)(
        torch.tensor(arrays['feats']), head.assignments(code), torch.tensor(arrays['perm'])
    )
    smooth, data = terms['loss_within'] + terms['loss_across'], head.loss(code)['loss_data']
    teacher_cosines = head(code)
    (smooth + data).backward()
    head.update_teacher()
    computed = dict(
        logits_global=teacher_cosines, smooth=smooth, data=data, grad_code=code.grad, grad_local=head.student.grad,
        global_after_ema=head.centres,
    )  # fmt: skip
    for name, value in computed.items():
        torch.testing.assert_close(
            value.detach(), torch.tensor(arrays[name]), rtol=1e-5, atol=1e-6,
            msg=lambda text, name=name: f'{name}: {text}',
        )  # fmt: skip
    # The tolerance of the arrays is as large as some gradients; single precision does better than that.
    torch.testing.assert_close(code.grad, torch.tensor(arrays['grad_code']), rtol=1e-4, atol=1e-8)


@pytest.fixture
def vectors(waves):
    """docs/methods/test_vectors.md A.6: features, code, prototypes and the permutation."""
    f, c = waves((4, 16, 28, 28), 0.37, 0.0)[:, :, :10, :10], waves((4, 6, 28, 28), 0.61, 0.2)[:, :, :10, :10]
    head = PrototypeHead(6, 5)
    with torch.no_grad():
        head.student.copy_(F.normalize(waves((5, 6), 0.9, 0.7), dim=1))
        head.centres.copy_(F.normalize(waves((5, 6), 0.8, 0.1), dim=1))
    return f, c.clone().requires_grad_(), head, torch.tensor([1, 2, 3, 0])


@pytest.mark.parametrize(('pointwise', 'expected'), [(True, -0.3088346), (False, -0.3088771)])
def test_energy_equals_the_vector(vectors, pointwise, expected):
    f, c, head, permutation = vectors
    terms = SmoothnessEnergyLoss(-0.02, 0.5, pointwise)(f, head.assignments(c), permutation)
    assert (terms['loss_within'] + terms['loss_across']).item() == pytest.approx(expected, abs=1e-6)
    assert head.loss(c)['loss_data'].item() == pytest.approx(1.5930083, abs=1e-6)


def test_gradients_equal_the_vectors(vectors):
    f, c, head, permutation = vectors
    terms = SmoothnessEnergyLoss(-0.02, 0.5, pointwise=False)(f, head.assignments(c), permutation)
    (terms['loss_within'] + terms['loss_across'] + head.loss(c)['loss_data']).backward()
    assert c.grad.norm().item() == pytest.approx(0.0155816, abs=1e-6)
    assert head.student.grad.norm().item() == pytest.approx(0.2447257, abs=1e-6)
    assert head.centres.grad is None and not head.centres.requires_grad


def test_mean_distances_equal_the_vectors(vectors):
    """A shift one lower adds the mean of delta."""
    f, c, head, permutation = vectors
    high, low = (SmoothnessEnergyLoss(b, b)(f, head.assignments(c), permutation) for b in (0.5, -0.5))
    distances = [(low[name] - high[name]).item() for name in ('loss_within', 'loss_across')]
    assert distances == pytest.approx([0.6370770, 0.6431203], abs=1e-6)


def test_teacher_step_equals_the_vector(vectors):
    head = vectors[2]
    head.update_teacher()
    expected = [0.0638884, -0.1008387, 0.6135776, 0.5907133, -0.3075927, 0.3990691]
    assert head.centres[0].tolist() == pytest.approx(expected, abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(low, high) for low, high in ((2, 4), (1, 6), (1, 6), (1, 40), (2, 30)))),
    shifts=st.tuples(*[st.floats(-1, 1)] * 2),
    pointwise=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_sum_over_all_pairs(sizes, shifts, pointwise, seed):
    batch, height, width, channels, classes = sizes
    generator = torch.Generator().manual_seed(seed)
    double = dict(generator=generator, dtype=torch.float64)
    # One common direction makes the cosines as high as those of real features.
    features = torch.randn(batch, channels, height, width, **double) + 2 * torch.rand((), **double)
    logits = 4 * torch.randn(batch, classes, height, width, **double)
    permutation = torch.randint(0, batch, (batch,), generator=generator)
    (computed, gradient), (expected, wanted) = both_forms(features, logits, permutation, shifts, pointwise)
    torch.testing.assert_close(computed, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-13)


@pytest.mark.parametrize('sizes', [(2, 384, 28, 27), (2, 768, 16, 3), (3, 24, 5, 108)], ids=str)
def test_single_precision_is_as_good_as_that_of_all_pairs(sizes):
    """High cosines and nearly hard assignments, where sums that cancel would show."""
    batch, channels, side, classes = sizes
    features = torch.randn(batch, channels, side, side) + 2 * torch.randn(channels, 1, 1)
    logits = 10 * torch.randn(batch, classes, side, side)
    permutation = torch.arange(batch).roll(1)
    (computed, gradient), (pairs, gradient_of_pairs) = both_forms(features, logits, permutation, (-0.02, 0.5), True)
    exact, exact_gradient = both_forms(features.double(), logits.double(), permutation, (-0.02, 0.5), True)[1]
    for value, other, truth in zip(computed, pairs, exact):
        assert abs(value - truth) <= abs(other - truth) + 1e-6
    error, other = ((item - exact_gradient).norm() / exact_gradient.norm() for item in (gradient, gradient_of_pairs))
    assert error <= 2 * other + 1e-6


@pytest.mark.parametrize('pointwise', [True, False])
def test_gradcheck(pointwise):
    loss = SmoothnessEnergyLoss(-0.02, 0.5, pointwise)
    features = torch.randn(3, 4, 2, 3, dtype=torch.float64) + 1
    logits = torch.randn(3, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    permutation = torch.tensor([1, 2, 1])
    assert torch.autograd.gradcheck(
        lambda item: tuple(loss(features, item.softmax(1), permutation).values()), (logits,)
    )


def test_features_get_no_gradient():
    features, logits = (torch.randn(3, 5, 4, 4, requires_grad=True) for _ in range(2))
    terms = SmoothnessEnergyLoss(0.0, 0.5)(features, logits.softmax(1))
    assert list(terms) == ['loss_within', 'loss_across']
    sum(terms.values()).backward()
    assert features.grad is None and logits.grad.norm() > 0


def test_pairings_are_drawn_anew_and_by_the_super_permutation():
    loss = SmoothnessEnergyLoss(0.0, 0.5)
    features, assignments = torch.randn(8, 5, 4, 4), torch.randn(8, 3, 4, 4).softmax(1)
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        drawn.append(loss(features, assignments))
    again = loss(features, assignments)
    # docs/methods/test_vectors.md A.5.
    told = loss(features, assignments, torch.tensor([4, 0, 7, 4, 2, 6, 1, 6]))
    assert drawn[0] == drawn[1] == told
    assert again['loss_across'] != told['loss_across'] and again['loss_within'] == told['loss_within']


def test_memory_never_grows_with_the_pairs():
    """No tensor of the forward or backward pass is larger than the features."""
    positions, largest = 40 * 40, []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            tensors = result if isinstance(result, (tuple, list)) else [result]
            largest.extend(item.numel() for item in tensors if isinstance(item, Tensor))
            return result

    features, assignments = torch.randn(2, 24, 40, 40), torch.rand(2, 5, 40, 40, requires_grad=True)
    with Watch():
        sum(SmoothnessEnergyLoss(0.0, 0.5)(features, assignments).values()).backward()
    assert max(largest) == features.numel() < positions**2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_energy_in_single_precision(dtype):
    features, logits, permutation = torch.randn(3, 16, 6, 6), 5 * torch.randn(3, 4, 6, 6), torch.tensor([2, 0, 1])
    loss, results = SmoothnessEnergyLoss(-0.02, 0.5), []
    for enabled in (False, True):
        leaf = logits.clone().requires_grad_()
        with torch.autocast('cpu', dtype=dtype, enabled=enabled):
            terms = loss(features, leaf.softmax(1), permutation)
        sum(terms.values()).backward()
        assert all(term.dtype == torch.float32 for term in terms.values())
        results.append((list(terms.values()), leaf.grad))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


def test_half_precision_inputs_are_computed_in_single_precision():
    features, assignments = torch.randn(2, 16, 6, 6).bfloat16(), torch.randn(2, 4, 6, 6).softmax(1).bfloat16()
    loss, permutation = SmoothnessEnergyLoss(-0.02, 0.5), torch.tensor([1, 0])
    computed = loss(features, assignments, permutation)
    assert computed == loss(features.float(), assignments.float(), permutation)


def test_zero_features_are_finite():
    """Channel dropout may leave nothing of a position."""
    assignments = torch.rand(2, 3, 4, 4, requires_grad=True)
    terms = SmoothnessEnergyLoss(-0.02, 0.5)(torch.zeros(2, 5, 4, 4), assignments)
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values()) and torch.isfinite(assignments.grad).all()


def test_batch_of_one():
    with pytest.raises(ValueError, match='this batch holds 1. Use a train batch size of at least 2'):
        SmoothnessEnergyLoss(0.0, 0.5)(torch.randn(1, 5, 4, 4), torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize('shape', [(3, 3, 4, 4), (2, 3, 8, 2), (2, 3, 2, 2)])
def test_other_grids(shape):
    with pytest.raises(ValueError, match=r'same images and grid; got \(2, 5, 4, 4\) and'):
        SmoothnessEnergyLoss(0.0, 0.5)(torch.randn(2, 5, 4, 4), torch.rand(shape))


def test_registration():
    loss = MODELS.build(dict(type='SmoothnessEnergyLoss', within_shift=0.1, across_shift=0.5))
    assert (loss.within_shift, loss.across_shift, loss.pointwise) == (0.1, 0.5, True)
