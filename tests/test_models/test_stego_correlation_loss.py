from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from omh_mmseg.models.losses import STEGOCorrelationLoss
from omh_mmseg.models.losses.stego_correlation_loss import correlation_term, sample_positions, super_permutation
from omh_mmseg.registry import MODELS

# (weight, shift) of the negatives, the neighbour and the image itself, as the golden arrays were made with.
ROWS = dict(
    small_coco=((0.63, 0.66), (0.25, 0.02), (0.67, 0.08)),
    cityscapes=(
        (0.9058762625226623, 0.31361241889448443), (0.577453483136995, 0.1754346515479633), (1.0, 0.45858)
    ),
)  # fmt: skip
OPTIONS = [
    dict(pointwise=pointwise, zero_clamp=zero_clamp, stabilize=stabilize)
    for pointwise in (True, False)
    for zero_clamp in (True, False)
    for stabilize in (True, False)
]
# docs/methods/test_vectors.md A.2: self, knn, rand.
VECTORS = {
    (True, True, False): (0.0210873, 0.0206392, 0.0773076),
    (True, True, True): (0.0224299, 0.0204974, 0.0767775),
    (True, False, False): (-0.0093128, -0.0002639, -0.0007526),
    (True, False, True): (-0.0079703, -0.0004057, -0.0012827),
    (False, True, False): (0.0211201, 0.0206351, 0.0772654),
    (False, True, True): (0.0224652, 0.0204930, 0.0767378),
    (False, False, False): (-0.0092226, -0.0002476, -0.0008730),
    (False, False, True): (-0.0078775, -0.0003897, -0.0014006),
}
EXAMPLE = dict(self_weight=0.67, self_shift=0.08, knn_weight=0.25, knn_shift=0.02, rand_weight=0.63, rand_shift=0.66)


@pytest.mark.golden
@pytest.mark.parametrize('options', OPTIONS, ids=lambda options: ''.join(str(int(value)) for value in options.values()))
@pytest.mark.parametrize('row', ROWS)
def test_equals_the_reference(golden, row, options):
    arrays = golden('stego_correlation')
    names = ('feats', 'code', 'feats_pos', 'code_pos', 'coords1', 'coords2', 'perms')
    feats, code, feats_pos, code_pos, coords1, coords2, perms = (torch.tensor(arrays[name]) for name in names)
    code.requires_grad_(), code_pos.requires_grad_()
    (w_rand, b_rand), (w_knn, b_knn), (w_self, b_self) = ROWS[row]
    loss = STEGOCorrelationLoss(
        w_self, b_self, w_knn, b_knn, w_rand, b_rand, feature_samples=coords1.shape[1],
        negative_samples=len(perms), **options,
    )  # fmt: skip
    terms = loss(feats, code, feats_pos, code_pos, (coords1, coords2), perms.long())
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    prefix = f'{row}/pointwise={options["pointwise"]:d},zero_clamp={options["zero_clamp"]:d},'
    prefix += f'stabilize={options["stabilize"]:d}'
    computed = dict(
        pos_intra=terms['loss_self'] / w_self,
        pos_inter=terms['loss_knn'] / w_knn,
        neg_inter=terms['loss_rand'] / w_rand,
        total=total,
        grad_code=code.grad,
        grad_code_pos=code_pos.grad,
    )
    for name, value in computed.items():
        expected = torch.tensor(arrays[f'{prefix}/{name}']).reshape(value.shape)
        torch.testing.assert_close(
            value.detach(), expected, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )


def test_generator_of_the_vectors(waves):
    expected = [[0.09983341, 0.23924933, 0.72896904], [0.13323204, 0.75157344, 0.17345215]]
    torch.testing.assert_close(waves((2, 3), 0.7, 0.1), torch.tensor(expected), rtol=0, atol=1e-7)


def test_sampled_positions(waves):
    sampled = sample_positions(waves((4, 16, 28, 28), 0.37, 0.0), waves((4, 11, 11, 2), 1.7, 0.5))
    assert sampled.double().sum().item() == pytest.approx(-33.417131, abs=1e-5)
    torch.testing.assert_close(
        sampled[0, 0, 0, :3], torch.tensor([-0.83117461, -0.02073053, -0.07410359]), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        sampled[0, 0, :3, 0], torch.tensor([-0.83117461, 0.77977008, 0.20608185]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('options', OPTIONS, ids=lambda options: ''.join(str(int(value)) for value in options.values()))
def test_terms_equal_the_vectors(waves, options):
    f, f_knn = waves((4, 16, 28, 28), 0.37, 0.0), waves((4, 16, 28, 28), 0.53, 0.3)
    c, c_knn = waves((4, 6, 28, 28), 0.61, 0.2), waves((4, 6, 28, 28), 0.29, 0.4)
    coordinates = waves((4, 11, 11, 2), 1.7, 0.5), waves((4, 11, 11, 2), 2.3, 0.9)
    loss = STEGOCorrelationLoss(1.0, 0.18, 1.0, 0.12, 1.0, 0.46, negative_samples=1, **options)
    terms = loss(f, c, f_knn, c_knn, coordinates, torch.tensor([[1, 2, 3, 0]]))
    expected = VECTORS[tuple(options.values())]
    assert [term.item() for term in terms.values()] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ('seed', 'expected'),
    [(0, [4, 0, 7, 4, 2, 6, 1, 6]), (1, [5, 4, 3, 6, 7, 3, 1, 0]), (2, [1, 4, 7, 2, 6, 6, 1, 3])],
)
def test_super_permutation_equals_the_vectors(seed, expected):
    torch.manual_seed(seed)
    assert super_permutation(8).tolist() == expected


@pytest.mark.parametrize('size', [2, 3, 5])
def test_super_permutation_never_pairs_an_image_with_itself(size):
    for _ in range(50):
        drawn = super_permutation(size)
        assert drawn.min() >= 0 and drawn.max() < size
        assert (drawn != torch.arange(size)).all()


@given(size=st.integers(2, 64), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_super_permutation_moves_the_fixed_points_of_a_permutation_and_no_other(size, seed):
    torch.manual_seed(seed)
    drawn = super_permutation(size)
    torch.manual_seed(seed)
    permutation, places = torch.randperm(size), torch.arange(size)
    fixed = permutation == places
    assert drawn.dtype == torch.int64 and drawn.shape == (size,)
    assert torch.equal(drawn[~fixed], permutation[~fixed])
    assert torch.equal(drawn[fixed], (places[fixed] + 1) % size)


def test_every_other_image_is_a_likely_partner():
    """Image i gets i + 1 about twice as often as any other: as itself it would have got it, too."""
    torch.manual_seed(0)
    drawn = torch.stack([super_permutation(5) for _ in range(4000)])
    shares = torch.stack([(drawn == partner).double().mean(0) for partner in range(5)], 1)
    expected = 0.2 * (1 - torch.eye(5) + torch.eye(5).roll(1, 1))
    torch.testing.assert_close(shares, expected.double(), atol=0.03, rtol=0)


def test_batch_of_one():
    maps = torch.randn(1, 3, 4, 4)
    with pytest.raises(ValueError, match='this batch holds 1. Use a train batch size of at least 2'):
        STEGOCorrelationLoss(**EXAMPLE)(maps, maps, maps, maps)


def test_features_get_no_gradient_and_every_code_does():
    features = torch.randn(3, 8, 6, 6, requires_grad=True)
    codes = [torch.randn(3, 5, 6, 6, requires_grad=True) for _ in range(2)]
    terms = STEGOCorrelationLoss(**EXAMPLE)(features, codes[0], features, codes[1])
    torch.stack(list(terms.values())).sum().backward()
    assert features.grad is None
    assert all(code.grad.norm() > 0 for code in codes)


def test_positions_and_pairings_are_drawn_anew():
    loss = STEGOCorrelationLoss(**EXAMPLE, feature_samples=3)
    maps = [torch.randn(4, 5, 6, 6) for _ in range(4)]
    first, second = loss(*maps), loss(*maps)
    assert list(first) == ['loss_self', 'loss_knn', 'loss_rand']
    assert all(first[name] != second[name] for name in first)


def test_the_negatives_are_the_mean_over_the_pairings():
    maps = [torch.randn(3, 5, 6, 6) for _ in range(4)]
    coordinates = torch.rand(3, 4, 4, 2) * 2 - 1, torch.rand(3, 4, 4, 2) * 2 - 1
    pairings = torch.tensor([[1, 2, 0], [2, 0, 1]])
    loss = STEGOCorrelationLoss(**EXAMPLE)
    together = loss(*maps, coordinates, pairings)['loss_rand']
    alone = [loss(*maps, coordinates, pairings[[row]])['loss_rand'] for row in range(2)]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_centring_is_over_the_second_image_and_keeps_the_batch_mean():
    """Against docs/methods/stego.md 3A.3 written with five explicit axes."""
    f1, f2, c1, c2 = (torch.randn(2, channels, 3, 3, dtype=torch.float64) for channels in (6, 6, 4, 4))
    cosines = torch.einsum('nchw,ncij->nhwij', F.normalize(f1, dim=1), F.normalize(f2, dim=1))
    centred = cosines - cosines.mean((3, 4), keepdim=True)
    centred = centred - centred.mean() + cosines.mean()
    codes = torch.einsum('nchw,ncij->nhwij', F.normalize(c1, dim=1), F.normalize(c2, dim=1)).clamp(0, 0.8)
    expected = -(codes * (centred - 0.3)).mean()
    torch.testing.assert_close(correlation_term(f1, f2, c1, c2, 0.3, stabilize=True), expected)


def random_batch(seed: int, batch: int = 3, dtype: torch.dtype = torch.float64) -> tuple[list, tuple, torch.Tensor]:
    """Features, code and those of the neighbours, all wider than high; coordinates; pairings."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(batch, channels, 4, 5, generator=generator, dtype=dtype) for channels in (6, 3, 6, 3)]
    coordinates = tuple(torch.rand(batch, 2, 2, 2, generator=generator, dtype=dtype) * 2 - 1 for _ in range(2))
    pairings = torch.stack([torch.arange(batch).roll(shift) for shift in range(1, batch)])
    return maps, coordinates, pairings


def loss_with(options: dict) -> STEGOCorrelationLoss:
    return STEGOCorrelationLoss(**EXAMPLE, **options)


@pytest.mark.parametrize('options', OPTIONS, ids=lambda options: ''.join(str(int(value)) for value in options.values()))
def test_gradcheck(options):
    """In float64, of both codes and all three terms, through the sampling."""
    (features, code, other_features, other_code), coordinates, pairings = random_batch(3)

    def terms(code: torch.Tensor, other_code: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(
            loss_with(options)(features, code, other_features, other_code, coordinates, pairings).values()
        )

    assert torch.autograd.gradcheck(terms, (code.requires_grad_(), other_code.requires_grad_()))


batches = dict(
    seed=st.integers(0, 2**31), batch=st.integers(2, 5), options=st.sampled_from(OPTIONS), order=st.randoms()
)


@given(**batches)
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_batch_does_not_matter(seed, batch, options, order):
    maps, coordinates, pairings = random_batch(seed, batch)
    shuffled = list(range(batch))
    order.shuffle(shuffled)
    shuffled = torch.tensor(shuffled)
    # Image shuffled[i] stands at i now, and so must its partner.
    moved = shuffled.argsort()[pairings[:, shuffled]]
    expected = loss_with(options)(*maps, coordinates, pairings)
    computed = loss_with(options)(
        *(item[shuffled] for item in maps), tuple(item[shuffled] for item in coordinates), moved
    )
    torch.testing.assert_close(computed, expected)


@given(**batches)
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_positions_does_not_matter(seed, batch, options, order):
    maps, coordinates, pairings = random_batch(seed, batch)
    moved = []
    for item in coordinates:
        places = list(range(4))
        order.shuffle(places)
        moved.append(item.flatten(1, 2)[:, places].unflatten(1, (2, 2)))
    expected = loss_with(options)(*maps, coordinates, pairings)
    torch.testing.assert_close(loss_with(options)(*maps, tuple(moved), pairings), expected)


@given(seed=st.integers(0, 2**31), options=st.sampled_from(OPTIONS), factor=st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_the_length_of_features_and_code_does_not_matter(seed, options, factor):
    maps, coordinates, pairings = random_batch(seed)
    expected = loss_with(options)(*maps, coordinates, pairings)
    torch.testing.assert_close(loss_with(options)(*(factor * item for item in maps), coordinates, pairings), expected)


@given(seed=st.integers(0, 2**31), options=st.sampled_from(OPTIONS), shift=st.floats(-1, 1))
@settings(max_examples=40, deadline=None)
def test_the_shift_adds_its_multiple_of_the_mean_code_cosine(seed, options, shift):
    """And centring, which keeps the mean of the tensor, leaves that alone."""
    (f1, c1, f2, c2), _, _ = random_batch(seed)
    cosines = torch.einsum('nchw,ncij->nhwij', F.normalize(c1, dim=1), F.normalize(c2, dim=1))
    clamped = cosines.clamp(min=0 if options['zero_clamp'] else None, max=0.8 if options['stabilize'] else 1)
    at_zero = correlation_term(f1, f2, c1, c2, 0.0, **options)
    torch.testing.assert_close(
        correlation_term(f1, f2, c1, c2, shift, **options), at_zero + shift * clamped.mean()
    )


def test_wrong_arguments_and_registration():
    for wrong in (dict(feature_samples=0), dict(negative_samples=0)):
        with pytest.raises(ValueError, match='_samples must be a whole number in .*; got 0'):
            MODELS.build(dict(type='STEGOCorrelationLoss', **EXAMPLE, **wrong))
