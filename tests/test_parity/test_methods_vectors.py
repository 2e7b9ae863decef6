"""The examiner examined: the straight-line derivation against docs/methods/test_vectors.md A and the reference's
arrays.
"""

from __future__ import annotations

import math

import pytest
import torch
from straight_line_stego import (
    Draws,
    Settings,
    StraightLineStego,
    cluster_scores,
    correspondence,
    sample,
    upsample,
    without_fixed_points,
)
from torch import Tensor

# docs/methods/test_vectors.md A.2: pointwise, zero_clamp, stabilize -> self, knn, rand.
TERMS = {
    (True, True, False): (0.0210873, 0.0206392, 0.0773076),
    (True, True, True): (0.0224299, 0.0204974, 0.0767775),
    (True, False, False): (-0.0093128, -0.0002639, -0.0007526),
    (True, False, True): (-0.0079703, -0.0004057, -0.0012827),
    (False, True, False): (0.0211201, 0.0206351, 0.0772654),
    (False, True, True): (0.0224652, 0.0204930, 0.0767378),
    (False, False, False): (-0.0092226, -0.0002476, -0.0008730),
    (False, False, True): (-0.0078775, -0.0003897, -0.0014006),
}
# Weights and shifts of self, knn and rand that the golden arrays were made with.
ROWS = dict(
    small_coco=(0.67, 0.25, 0.63, 0.08, 0.02, 0.66),
    cityscapes=(1.0, 0.577453483136995, 0.9058762625226623, 0.45858, 0.1754346515479633, 0.31361241889448443),
)


def waves(shape: tuple[int, ...], a: float, b: float) -> Tensor:
    """Generator Q of the appendix, rounded to float32 and widened."""
    values = [math.sin(a * ((i * i + 3 * i) % 9973) + b) for i in range(math.prod(shape))]
    return torch.tensor(values, dtype=torch.float32).double().reshape(shape)


def settings_of(options: tuple[bool, bool, bool], row: tuple[float, ...] = (1, 1, 1, 0, 0, 0)) -> Settings:
    return Settings(5, *row, *options)


def test_generator():
    expected = [0.09983341, 0.23924933, 0.72896904, 0.13323204, 0.75157344, 0.17345215]
    assert waves((2, 3), 0.7, 0.1).flatten().tolist() == pytest.approx(expected, abs=1e-8)


def test_a1_sampling():
    sampled = sample(waves((4, 16, 28, 28), 0.37, 0), waves((4, 11, 11, 2), 1.7, 0.5))
    assert sampled.sum().item() == pytest.approx(-33.417131, rel=1e-5)
    assert sampled[0, 0, 0, :3].tolist() == pytest.approx([-0.83117461, -0.02073053, -0.07410359], abs=1e-5)
    assert sampled[0, 0, :3, 0].tolist() == pytest.approx([-0.83117461, 0.77977008, 0.20608185], abs=1e-5)


@pytest.mark.parametrize('options', TERMS, ids=lambda options: ''.join(str(int(value)) for value in options))
def test_a2_terms(options):
    coords1, coords2 = waves((4, 11, 11, 2), 1.7, 0.5), waves((4, 11, 11, 2), 2.3, 0.9)
    f, c = waves((4, 16, 28, 28), 0.37, 0), waves((4, 6, 28, 28), 0.61, 0.2)
    f_pos, c_pos = waves((4, 16, 28, 28), 0.53, 0.3), waves((4, 6, 28, 28), 0.29, 0.4)
    fs, cs = sample(f, coords1), sample(c, coords1)
    others = [
        (fs, cs, 0.18),
        (sample(f_pos, coords2), sample(c_pos, coords2), 0.12),
        (sample(f[[1, 2, 3, 0]], coords2), sample(c[[1, 2, 3, 0]], coords2), 0.46),
    ]
    computed = [correspondence(fs, f2, cs, c2, shift, settings_of(options)).item() for f2, c2, shift in others]
    assert computed == pytest.approx(TERMS[options], abs=2e-7)


def test_a3_cluster_probe():
    code, centres = waves((4, 6, 28, 28), 0.61, 0.2), waves((5, 6), 0.9, 0.7).requires_grad_()
    loss = StraightLineStego(settings_of((True, True, False)), {}, {}, dict(centres=centres)).cluster_loss(code)
    (gradient,) = torch.autograd.grad(loss, centres)
    scores = cluster_scores(code, centres.detach())
    assert loss.item() == pytest.approx(-0.5332255, abs=1e-6)
    assert scores.argmax(1).flatten().bincount().tolist() == [651, 656, 523, 539, 767]
    assert gradient.norm().item() == pytest.approx(0.0385103, abs=1e-6)
    assert torch.log_softmax(2 * scores, 1)[0, :, 0, 0].tolist() == pytest.approx(
        [-3.491833, -0.563531, -2.655925, -2.054262, -1.599794], abs=1e-6
    )


def test_a4_linear_probe():
    probe = dict(weight=waves((27, 6), 0.41, 0.2), bias=waves((27,), 1.1, 0))
    labels = ((7 * torch.arange(4 * 224 * 224)) % 31 - 2).reshape(4, 224, 224)
    other = StraightLineStego(Settings(27, 1, 1, 1, 0, 0, 0), {}, probe, {})
    assert other.linear_loss(waves((4, 6, 28, 28), 0.61, 0.2), labels).item() == pytest.approx(3.8334172, abs=1e-6)


@pytest.mark.parametrize(
    ('seed', 'expected'),
    [(0, [4, 0, 7, 4, 2, 6, 1, 6]), (1, [5, 4, 3, 6, 7, 3, 1, 0]), (2, [1, 4, 7, 2, 6, 6, 1, 3])],
)
def test_a5_super_permutation(seed, expected):
    torch.manual_seed(seed)
    assert without_fixed_points(torch.randperm(8)).tolist() == expected


@pytest.mark.golden
@pytest.mark.parametrize('options', TERMS, ids=lambda options: ''.join(str(int(value)) for value in options))
@pytest.mark.parametrize('row', ROWS)
def test_golden_correlation_with_gradients(golden, row, options):
    arrays = golden('stego_correlation')
    names = ('feats', 'feats_pos', 'code', 'code_pos', 'coords1', 'coords2')
    f, f_pos, c, c_pos, coords1, coords2 = (torch.tensor(arrays[name]).double() for name in names)
    c.requires_grad_(), c_pos.requires_grad_()
    none = (torch.empty(0),) * 3
    draws = Draws(none, none, coords1, coords2, list(torch.tensor(arrays['perms'])))
    terms = StraightLineStego(settings_of(options, ROWS[row]), {}, {}, {}).correlation(f, f_pos, c, c_pos, draws)
    total = sum(terms.values())
    gradients = torch.autograd.grad(total, (c, c_pos))
    prefix = '{}/pointwise={:d},zero_clamp={:d},stabilize={:d}'.format(row, *options)
    w_self, w_knn, w_rand = ROWS[row][:3]
    computed = dict(
        pos_intra=terms['self'] / w_self, pos_inter=terms['knn'] / w_knn, neg_inter=terms['rand'] / w_rand, total=total,
        grad_code=gradients[0], grad_code_pos=gradients[1],
    )  # fmt: skip
    for name, value in computed.items():
        expected = torch.tensor(arrays[f'{prefix}/{name}']).double().reshape(value.shape)
        torch.testing.assert_close(
            value.detach(), expected, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )


def test_upsampling_equals_torch():
    maps = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    for size in ((5, 7), (40, 56), (13, 30), (3, 4)):
        expected = torch.nn.functional.interpolate(maps, size=size, mode='bilinear', align_corners=False)
        torch.testing.assert_close(upsample(maps, size), expected)
