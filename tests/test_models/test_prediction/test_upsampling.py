from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.models.prediction.upsampling import MAX_VALUES, Upsampling, arg_max, upsampled_norm


def bilinear(maps: Tensor, *size: int) -> Tensor:
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=False)


@pytest.mark.parametrize(
    ('grid', 'size'), [((4, 6), (32, 48)), ((5, 5), (37, 11)), ((1, 3), (8, 8)), ((7, 3), (7, 3)), ((7, 9), (3, 4))]
)
def test_norm_is_that_of_the_upsampled_code(grid, size):
    code = torch.randn(1, 12, *grid)
    torch.testing.assert_close(upsampled_norm(code, size), bilinear(code, *size).norm(dim=1, keepdim=True))


@pytest.mark.parametrize('max_values', [1, 48 * 3 * 11, 48 * 40 * 11, MAX_VALUES])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_arg_max_does_not_depend_on_the_bound(max_values, dtype, monkeypatch):
    scores, to = torch.randn(1, 11, 6, 5, dtype=dtype), Upsampling.to((40, 48))
    columns = Upsampling.columns

    def bounded(self: Upsampling, maps: Tensor) -> Tensor:
        band = columns(self, maps)
        assert band.numel() <= max(max_values, 11 * 48)
        return band

    monkeypatch.setattr(Upsampling, 'columns', bounded)
    labels = arg_max(scores, to, max_values=max_values)
    expected = bilinear(scores, 40, 48).argmax(1)
    assert torch.equal(labels, expected) and labels.dtype == torch.int64
    bias, norm = torch.randn(11), torch.rand(1, 1, 40, 48)
    labels = arg_max(scores, to, bias, norm, max_values)
    full = bilinear(scores, 40, 48) + norm * bias[:, None, None]
    assert torch.equal(labels, full.argmax(1)) and not torch.equal(labels, expected)


@pytest.mark.parametrize(
    ('padded', 'image', 'target'),
    [
        ((48, 64), (41, 50), (83, 99)),
        ((48, 64), (41, 50), (41, 50)),
        ((48, 64), (48, 50), (17, 64)),
        ((6, 8), (6, 8), (6, 8)),
        ((48, 64), (48, 64), (1, 1)),
    ],
    ids=['padding cut', 'of the image', 'padded at the right', 'as large as the grid', 'one pixel'],
)
@pytest.mark.parametrize('max_values', [400, MAX_VALUES])
def test_arg_max_cuts_the_padding_as_the_whole_maps_do(padded, image, target, max_values):
    scores = torch.randn(1, 7, 6, 8)
    full = bilinear(bilinear(scores, *padded)[..., : image[0], : image[1]], *target)
    upsampling = Upsampling(padded, image, target)
    torch.testing.assert_close(upsampling(scores), full)
    assert torch.equal(arg_max(scores, upsampling, max_values=max_values), full.argmax(1))


def test_autocast_does_not_reach_the_scores():
    """In half precision most of these pixels would be ties."""
    scores, to = 1 + torch.rand(1, 5, 6, 5) / 100, Upsampling.to((40, 48))
    with torch.autocast('cpu', torch.bfloat16):
        labels = arg_max(scores, to)
    assert torch.equal(labels, arg_max(scores, to))
