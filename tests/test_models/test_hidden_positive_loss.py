"""HP's losses: golden arrays, docs/methods/test_vectors.md A.7, a form that holds all maps at once, finite differences,
edges.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omh_mmseg.models.losses import HiddenPositiveLoss, contrast_blocks
from omh_mmseg.models.losses.hidden_positive_contrast import draw_random_negatives, hidden_positive_contrast
from omh_mmseg.models.losses.hidden_positive_loss import consistency_distance
from omh_mmseg.registry import MODELS

BASE = 0.07


@pytest.fixture(scope='module', autouse=True, params=[False, True], ids=['masks kept', 'masks made again'])
def visits(request) -> Iterator[None]:
    """Everything holds whether a block's masks stay for its second visit or are made again."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setattr(contrast_blocks, 'KEPT_BYTES', 0)
        yield


def all_maps_at_once(
    z: Tensor, z_mix: Tensor, f: Tensor, s: Tensor, pool_f: Tensor, pool_s: Tensor, positions: int, tau: float,
    lam: float, kept: Tensor | None = None, reweighting: bool = True,
) -> Tensor:  # fmt: skip
    """docs/methods/hp.md 3B.5 to 3B.7 on N x N maps and by automatic differentiation."""
    size = len(z)
    others = ~torch.eye(size, dtype=torch.bool)

    def positives(vectors: Tensor, pool: Tensor) -> Tensor:
        limit = (vectors @ pool.t()).max(1).values
        cosine = vectors @ vectors.t()
        return ((cosine > limit[:, None]) | (cosine > limit[None])) & others

    agnostic, specific = positives(f, pool_f), positives(s, pool_s)
    weights = agnostic.to(z.dtype) + lam * specific.to(z.dtype)
    random = torch.ones(size, size, dtype=torch.bool) if kept is None else kept.repeat(size // positions, 1)
    denominator = (agnostic | random) & others
    total = z.new_zeros(())
    for view in (z, z_mix):
        logits = view @ view.t() / tau
        for start in range(0, size, positions):
            terms, sums = [], []
            for a in range(start, start + positions):
                if agnostic[a].any():
                    log_probability = logits[a] - torch.logsumexp(logits[a][denominator[a]], 0)
                    sums.append(weights[a].sum())
                    terms.append((weights[a] * log_probability).sum() / sums[-1])
            if terms:
                ratio = torch.stack(sums) / torch.stack(sums).mean() if reweighting else torch.ones(len(terms))
                total = total - (tau / BASE * torch.stack(terms) * ratio).mean()
    return total / (size // positions) / 2


def unit(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(torch.randn(shape, dtype=dtype), dim=1)


def inputs(images: int = 3, positions: int = 6, pool: int = 4) -> list[Tensor]:
    size = images * positions
    z, z_mix, f, s = unit(size, 5), unit(size, 5), unit(size, 4), unit(size, 5)
    return [z.requires_grad_(), z_mix.requires_grad_(), f, s, unit(pool, 4), unit(pool, 5)]


def gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves, allow_unused=True))


# ---- numbers of the reference


@pytest.mark.golden
@pytest.mark.parametrize('reweighting', [0, 1])
@pytest.mark.parametrize('lam', [0.0, 0.4, 1.0])
@pytest.mark.parametrize('rho', [0.0, 0.02, 0.3])
@pytest.mark.parametrize('rows', [None, 7], ids=['whole image', 'seven rows'])
def test_golden(golden, rho, lam, reweighting, rows):
    arrays = {name: torch.tensor(value) for name, value in golden('hp_contrastive').items()}
    case = f'rho={rho}/lmbd={lam}/reweight={reweighting}'
    for fp16_masks in (False, True):
        z, z_mix = arrays['z'].clone().requires_grad_(), arrays['z_mix'].clone().requires_grad_()
        others = (arrays[name] for name in ('f', 's_ema', 'pool_agnostic', 'pool_specific'))
        result = hidden_positive_contrast(
            z, z_mix, *others, 25, 0.07, lam, arrays[f'rho={rho}/neglect_mask'], bool(reweighting), fp16_masks,
            None if rows is None else rows * len(z),
        )  # fmt: skip
        # 0.4 is no half-precision number; exact masks differ by its rounding.
        tolerance = dict(rtol=1e-5, atol=1e-6) if fp16_masks or lam != 0.4 else dict(rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(result.loss, arrays[f'{case}/loss'], **tolerance)
        first, second = gradients(result.loss, z, z_mix)
        torch.testing.assert_close(first, arrays[f'{case}/grad_z'], **tolerance)
        torch.testing.assert_close(second, arrays[f'{case}/grad_z_mix'], **tolerance)


@pytest.fixture
def vectors(waves):
    """The arguments of docs/methods/test_vectors.md A.7 with the pools of so many rows."""

    def make(agnostic: int, specific: int) -> list[Tensor]:
        shapes = [(108, 8), (108, 8), (108, 12), (108, 8), (agnostic, 12), (specific, 8)]
        phases = [(0.31, 0.2), (0.47, 0.6), (0.19, 0.4), (0.23, 0.1), (1.31, 0.7), (1.13, 0.3)]
        made = [F.normalize(waves(shape, *phase), dim=1) for shape, phase in zip(shapes, phases)]
        return [made[0].requires_grad_(), made[1].requires_grad_(), *made[2:]]

    return make


A7_SMALL = {
    0.0: (28.848722, 28.848211, 54.456264, 54.455387),
    0.5: (28.843512, 28.853460, 54.450684, 54.460632),
    1.0: (28.841253, 28.854507, 54.448223, 54.461685),
}


@pytest.mark.parametrize('lam', A7_SMALL)
def test_a7_small_pools(vectors, lam):
    settings_of_columns = [(0.4, True), (0.4, False), (0.8, True), (0.8, False)]
    for (tau, reweighting), expected in zip(settings_of_columns, A7_SMALL[lam]):
        result = hidden_positive_contrast(*vectors(4, 4), 36, tau, lam, None, reweighting, fp16_masks=True)
        assert result.loss.item() == pytest.approx(expected, rel=1e-6)
    assert float(result.kept) == 1
    assert float(result.agnostic_positives) == pytest.approx(26.0926, abs=1e-4)


# lambda, half-precision masks, loss, gradient norms on z and z_mix, loss without random negatives
A7_SELECTIVE = [
    (0.0, False, 40.996532, 1.574594, 1.579432, 5.051269),
    (0.0, True, 40.996532, 1.574594, 1.579432, 5.051269),
    (0.7, False, 41.419323, 0.899058, 0.921610, None),
    (0.7, True, 41.419418, 0.899058, 0.921610, 4.456527),
]


@pytest.mark.parametrize(('lam', 'fp16_masks', 'loss', 'on_z', 'on_z_mix', 'without'), A7_SELECTIVE)
def test_a7_selective_pools(vectors, lam, fp16_masks, loss, on_z, on_z_mix, without):
    arguments = vectors(300, 60)
    result = hidden_positive_contrast(*arguments, 36, 0.6, lam, fp16_masks=fp16_masks)
    assert result.loss.item() == pytest.approx(loss, rel=5e-7)
    norms = [float(gradient.norm()) for gradient in gradients(result.loss, *arguments[:2])]
    # The norms are those of half-precision masks.
    assert norms == pytest.approx([on_z, on_z_mix], rel=1e-5 if fp16_masks or not lam else 2e-4)
    assert float(result.kept) == 0.5
    assert float(result.agnostic_positives) == pytest.approx(0.7778, abs=1e-4)
    assert float(result.specific_positives) == pytest.approx(2.9630 if lam else 0, abs=1e-4)
    # docs/methods/hp.md 8.13: the reference's value, and a gradient where it has NaN.
    nothing = torch.zeros(36, 108, dtype=torch.bool)
    bare = hidden_positive_contrast(*arguments, 36, 0.6, lam, nothing, fp16_masks=fp16_masks)
    if without is not None:
        assert bare.loss.item() == pytest.approx(without, rel=1e-6)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(bare.loss, *arguments[:2]))


# ---- against all maps at once


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 3),
    positions=st.integers(1, 7),
    pool=st.integers(1, 30),
    rows=st.integers(1, 8),
    lam=st.sampled_from([0.0, 0.3, 1.0]),
    rho=st.sampled_from([0.0, 0.3, 1.0]),
    tau=st.sampled_from([0.05, 0.4, 0.8]),
    reweighting=st.booleans(),
)
def test_equals_all_maps_at_once(seed, images, positions, pool, rows, lam, rho, tau, reweighting):
    torch.manual_seed(seed)
    arguments = inputs(images, positions, pool)
    size = images * positions
    kept = draw_random_negatives(positions, size, rho)
    options = (positions, tau, lam, kept, reweighting)
    expected = all_maps_at_once(*arguments, *options)
    result = hidden_positive_contrast(*arguments, *options, chunk_elements=rows * size)
    torch.testing.assert_close(result.loss, expected)
    if expected.requires_grad:
        for one, other in zip(gradients(result.loss, *arguments[:2]), gradients(expected, *arguments[:2])):
            torch.testing.assert_close(one, other)
    else:
        assert all(not gradient.any() for gradient in gradients(result.loss, *arguments[:2]))


@pytest.mark.parametrize('lam', [0.0, 0.6])
@pytest.mark.parametrize('rows', [2, 4])
def test_finite_differences(lam, rows):
    z, z_mix, *others = inputs(images=2, positions=4, pool=2)
    kept = draw_random_negatives(4, 8, 0.3)

    def loss(z: Tensor, z_mix: Tensor) -> Tensor:
        return hidden_positive_contrast(z, z_mix, *others, 4, 0.5, lam, kept, chunk_elements=rows * 8).loss

    assert loss(z, z_mix) > 0
    assert torch.autograd.gradcheck(loss, (z, z_mix))
    assert torch.autograd.gradcheck(lambda z: loss(z, z_mix.detach()), z)
    assert torch.autograd.gradcheck(lambda z_mix: loss(z.detach(), z_mix), z_mix)


@pytest.mark.parametrize(
    ('pool', 'kept'),
    [([[0.9, -1.0]], 1), ([[0.8, 0.6]], 0), ([[0.8, 0.6], [0.9, -1.0]], 0), ([[-1.0, 0.0]], 1)],
    ids=['one of them suffices', 'equality does not', 'the nearest row counts', 'both'],
)
def test_positives_are_strict_and_from_either_side(pool, kept):
    """Two patches of cosine 0.8; by the pools their thresholds are 0.9 and 0.12, or 0.8 and 1, or below 0."""
    f, z = torch.tensor([[1.0, 0.0], [0.8, 0.6]]), unit(2, 3).float()
    result = hidden_positive_contrast(z, z, f, f, torch.tensor(pool), f, 2, 0.5, 0.0)
    assert float(result.kept) == kept


def test_an_image_without_anchors_contributes_nothing():
    """docs/methods/hp.md 8.13: the reference makes the step NaN."""
    z, z_mix, f, s, _, pool_s = inputs(images=2)
    f[6:] = torch.eye(4, dtype=f.dtype)[torch.tensor([0, 1, 2, 3, 0, 1])] * -1
    f[:6] = F.normalize(torch.rand(6, 4, dtype=f.dtype) + 1, dim=1)
    pool = torch.cat([-torch.eye(4, dtype=f.dtype), -torch.ones(1, 4, dtype=f.dtype) / 2])
    both = hidden_positive_contrast(z, z_mix, f, s, pool, pool_s, 6, 0.5, 1.0)
    first, _ = gradients(both.loss, z, z_mix)
    assert float(both.kept) == 0.5 and torch.isfinite(both.loss) and torch.isfinite(first).all()
    torch.testing.assert_close(both.loss, all_maps_at_once(z, z_mix, f, s, pool, pool_s, 6, 0.5, 1.0))
    none = hidden_positive_contrast(z, z_mix, -f.abs(), s, -f.abs(), pool_s, 6, 0.5, 1.0)
    assert none.loss.item() == 0 and not gradients(none.loss, z)[0].any()


def test_a_sum_beyond_half_precision_is_no_nan():
    size = 256
    z, one = unit(size, 3, dtype=torch.float32), F.normalize(torch.ones(size, 3), dim=1)
    result = hidden_positive_contrast(z, z, one, one, -one[:1], -one[:1], size, 0.5, 1000.0, fp16_masks=True)
    assert torch.isfinite(result.loss)


def test_only_z_is_differentiated():
    z, z_mix, *others = (item.detach().clone().requires_grad_() for item in inputs())
    result = hidden_positive_contrast(z, z_mix, *others, 6, 0.5, 0.5)
    found = gradients(result.loss, z, z_mix, *others)
    assert [gradient is None for gradient in found] == [False, False, True, True, True, True]
    assert not result.kept.requires_grad
    with torch.no_grad():
        plain = hidden_positive_contrast(z, z_mix, *others, 6, 0.5, 0.5)
    assert plain.loss == result.loss and not plain.loss.requires_grad


def test_the_gradient_can_be_taken_twice_and_scales():
    arguments = inputs()
    result = hidden_positive_contrast(*arguments, 6, 0.5, 0.5)
    (once,) = torch.autograd.grad(result.loss, arguments[:1], retain_graph=True)
    (scaled,) = torch.autograd.grad(1024 * result.loss, arguments[:1])
    torch.testing.assert_close(scaled, 1024 * once)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_under_autocast_masks_stay_exact(dtype):
    arguments = [item.detach().float() for item in inputs(images=3, positions=20, pool=10)]
    z = arguments[0].requires_grad_()
    exact = hidden_positive_contrast(*arguments, 20, 0.5, 0.5)
    with torch.autocast('cpu', dtype=dtype):
        result = hidden_positive_contrast(*arguments, 20, 0.5, 0.5)
    assert result.loss.dtype == torch.float32
    assert result.agnostic_positives == exact.agnostic_positives
    torch.testing.assert_close(result.loss, exact.loss, rtol=2e-3, atol=0)
    for one, other in zip(gradients(result.loss, z), gradients(exact.loss, z)):
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.999


@pytest.mark.parametrize('name', ['bfloat16', 'float16'])
def test_products_of_a_chosen_type_are_those_under_autocast(name):
    dtype = getattr(torch, name)
    arguments = [item.detach().float() for item in inputs(images=3, positions=20, pool=10)]
    z = arguments[0].requires_grad_()
    exact = hidden_positive_contrast(*arguments, 20, 0.5, 0.5).loss
    chosen = hidden_positive_contrast(*arguments, 20, 0.5, 0.5, products=dtype).loss
    with torch.autocast('cpu', dtype=dtype):
        cast = hidden_positive_contrast(*arguments, 20, 0.5, 0.5).loss
    assert torch.equal(chosen, cast) and not torch.equal(chosen, exact)
    assert all(torch.equal(one, other) for one, other in zip(gradients(chosen, z), gradients(cast, z)))
    options = dict(temperature=0.5, random_negatives=1.0, consistency_weight=0.0)
    assert HiddenPositiveLoss(**options, products=name).products == dtype
    with pytest.raises(ValueError, match=f"one of .*; got 'half{name}'"):
        HiddenPositiveLoss(**options, products=f'half{name}')


def test_small_slopes_survive_half_precision():
    """With many patches and random negatives most slopes are far below what half precision holds."""
    arguments = [item.detach().float() for item in inputs(images=2, positions=300, pool=60)]
    z = arguments[0].requires_grad_()
    (exact,) = gradients(hidden_positive_contrast(*arguments, 300, 0.05, 0.0).loss, z)
    with torch.autocast('cpu', dtype=torch.float16):
        (found,) = gradients(hidden_positive_contrast(*arguments, 300, 0.05, 0.0).loss, z)
    torch.testing.assert_close(found, exact, rtol=0.02, atol=float(2e-3 * exact.abs().max()))


# ---- random negatives


def test_random_negatives_are_the_same_however_they_are_chunked():
    drawn = []
    for rows in (1, 3, 100):
        torch.manual_seed(3)
        drawn.append(draw_random_negatives(12, 48, 0.25, chunk_elements=48 * rows))
    torch.manual_seed(3)
    whole = torch.rand(12, 48) < 0.25
    assert all(torch.equal(item, whole) for item in drawn)
    assert draw_random_negatives(12, 48, 1.0) is None


def test_nothing_is_drawn_where_all_are_kept():
    before = torch.get_rng_state()
    draw_random_negatives(4, 8, 1.0)
    assert torch.equal(torch.get_rng_state(), before)


# ---- errors


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(positions=7), '18 patches are no whole number of images of 7'),
        (dict(temperature=0.0), 'temperature must be at least 0.02'),
        (dict(specific_weight=-1.0), 'specific_weight at least 0; got 0.5 and -1.0'),
        (dict(random_negatives=torch.zeros(5, 18, dtype=torch.bool)), r'random_negatives must be \(6, 18\)'),
        (dict(mixed=unit(12, 5)), 'one row per patch'),
        (dict(agnostic_pool=unit(3, 7)), r'must be \(M, 4\)'),
        (dict(agnostic_pool=torch.zeros(0, 4, dtype=torch.float64)), 'M of at least 1'),
    ],
)
def test_errors_of_the_contrast(change, message):
    names = ('projected', 'mixed', 'features', 'ema_code', 'agnostic_pool', 'specific_pool')
    options = dict(zip(names, inputs())) | dict(positions=6, temperature=0.5, specific_weight=0.5) | change
    with pytest.raises(ValueError, match=message):
        hidden_positive_contrast(**options)


@pytest.mark.parametrize('change', [dict(temperature=0), dict(random_negatives=1.5), dict(consistency_weight=-1)])
def test_errors_of_the_options(change):
    with pytest.raises(ValueError, match=f'{next(iter(change))} must be a number in'):
        HiddenPositiveLoss(**(dict(temperature=0.5, random_negatives=0.5, consistency_weight=0.5) | change))


# ---- the registered loss


def maps(**changes: Tensor) -> dict[str, Tensor]:
    shapes = dict(projected=5, mixed=5, augmented=5, features=4, ema_code=5)
    return {name: torch.randn(2, channels, 2, 3) for name, channels in shapes.items()} | dict(
        agnostic_pool=unit(4, 4).float(), specific_pool=unit(4, 5).float(), specific_weight=0.5
    ) | changes  # fmt: skip


def rows_of(item: Tensor) -> Tensor:
    return F.normalize(torch.cat([image.flatten(1).t() for image in item]), dim=1)


@pytest.mark.parametrize('rho', [0.3, 1.0])
def test_loss_takes_maps_apart(rho):
    loss = MODELS.build(
        dict(type='HiddenPositiveLoss', temperature=0.6, random_negatives=rho, consistency_weight=0.25)
    )
    arguments = maps()
    torch.manual_seed(5)
    found = loss(**arguments)
    torch.manual_seed(5)
    kept = None if rho == 1 else torch.rand(6, 12) < rho
    rows = {name: rows_of(arguments[name]) for name in ('projected', 'mixed', 'augmented', 'features', 'ema_code')}
    contrast = all_maps_at_once(
        *(rows[name] for name in ('projected', 'mixed', 'features', 'ema_code')),
        arguments['agnostic_pool'], arguments['specific_pool'], 6, 0.6, 0.5, kept,
    )  # fmt: skip
    distance = (rows['projected'] - rows['augmented'] + 1e-6).pow(2).sum(1).sqrt().mean()
    torch.testing.assert_close(found['loss_contrast'], contrast)
    torch.testing.assert_close(found['loss_consistency'], 0.25 * distance)
    assert {name for name in found if name.startswith('loss')} == {'loss_contrast', 'loss_consistency'}


def test_loss_without_consistency_needs_no_view():
    loss = HiddenPositiveLoss(temperature=0.6, random_negatives=1.0, consistency_weight=0.0)
    assert 'loss_consistency' not in loss(**maps(augmented=None))
    with pytest.raises(ValueError, match='needs the augmented view'):
        HiddenPositiveLoss(0.6, 1.0, 0.05)(**maps(augmented=None))


@pytest.mark.parametrize('name', ['mixed', 'augmented', 'features', 'ema_code'])
def test_grids_must_match(name):
    loss = HiddenPositiveLoss(temperature=0.6, random_negatives=1.0, consistency_weight=0.05)
    arguments = maps()
    arguments[name] = arguments[name].transpose(2, 3)
    with pytest.raises(ValueError, match=r'one grid \(B, h, w\).*' + name):
        loss(**arguments)


def test_gradient_of_the_consistency_flows_in_both():
    first, second = (unit(7, 3).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(consistency_distance, (first, second))
    assert all(gradient.any() for gradient in gradients(consistency_distance(first, second), first, second))
    same = unit(7, 3).requires_grad_()
    assert torch.isfinite(gradients(consistency_distance(same, same.detach()), same)[0]).all()
