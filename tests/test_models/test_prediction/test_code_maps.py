from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omh_mmseg.models.prediction.code_maps import flip_averaged, slide_averaged, window_starts


def pooled(images: Tensor) -> Tensor:
    """A code of the image's own: blocks of 8 pixels, seen with an asymmetric filter."""
    return F.conv2d(images, torch.arange(6 * 3 * 64, dtype=torch.float32).sin().reshape(6, 3, 8, 8), stride=8)


def test_flip_average_is_the_formula():
    images = torch.randn(2, 3, 16, 40)
    mirrored = torch.flip(images, dims=(3,))
    expected = (pooled(images) + torch.flip(pooled(mirrored), dims=(3,))) / 2
    averaged = flip_averaged(pooled, images)
    assert torch.equal(averaged, expected) and not torch.allclose(averaged, pooled(images))
    torch.testing.assert_close(flip_averaged(pooled, mirrored), averaged.flip(3))


@pytest.mark.parametrize('crop', [(32, 48), (64, 64), (32, 500)])
def test_one_window_that_covers_the_image_is_the_whole(crop):
    images = torch.randn(2, 3, 32, 48)
    assert torch.equal(slide_averaged(pooled, images, crop, (8, 8), 8), pooled(images))


def test_windows_of_a_local_code_give_the_whole():
    """A code that sees no further than its own cell does not depend on the window."""
    images = torch.randn(1, 3, 56, 72)
    torch.testing.assert_close(slide_averaged(pooled, images, (24, 32), (16, 8), 8), pooled(images))


def test_overlapping_windows_are_averaged():
    """Each window's code is its number: cells hold the mean of the numbers of the windows that hold them."""
    calls = []

    def numbered(images: Tensor) -> Tensor:
        calls.append(tuple(images.shape[-2:]))
        return torch.full((1, 1, 2, 2), float(len(calls)))

    code = slide_averaged(numbered, torch.zeros(1, 3, 16, 32), (16, 16), (8, 8), 8)
    assert calls == [(16, 16)] * 3
    assert code[0, 0].tolist() == [[1, 1.5, 2.5, 3]] * 2


def test_windows_need_images_on_the_grid():
    with pytest.raises(ValueError, match=r'images of 30x48 are no multiple of the 8 pixels.*size_divisor=8'):
        slide_averaged(pooled, torch.zeros(1, 3, 30, 48), (24, 24), (8, 8), 8)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 100), st.integers(1, 100))
def test_windows_cover_every_pixel_and_stay_inside(length, crop, step):
    starts = window_starts(length, crop, min(step, crop))
    seen = {pixel for start in starts for pixel in range(start, start + min(crop, length))}
    assert seen == set(range(length))
    assert starts == sorted(set(starts))
