"""HP's second view: what the reference does to normalised images, and what such operations are meant for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from omh_mmseg.models.utils.photometric_view import BlurByAxis, PhotometricView, random_blur

MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
NOTHING = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, grayscale=0.0, blur=0.0)


def pixels() -> Tensor:
    return torch.randint(0, 256, (4, 3, 16, 24)).float()


def normalised(images: Tensor) -> Tensor:
    return (images - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)


def test_reference_space_clamps():
    """docs/methods/data.md 5.6: after the jitter of normalised values the range is within [0, 1], with many zeros and
    ones.
    """
    images = normalised(pixels())
    view = PhotometricView(blur=0.0, grayscale=0.0, hue=0.0)(images)
    assert view.min() == 0 and view.max() == 1
    assert (view == 0).float().mean() > 0.25 and (view == 1).float().mean() > 0.1
    assert view.shape == images.shape and images.min() < -1.5


def test_brightness_of_the_reference_by_hand():
    """A factor per image, then the clamp."""
    images = normalised(pixels())
    factors = set()
    for one, other in zip(images, PhotometricView(**NOTHING | dict(brightness=0.3))(images)):
        inside = (other > 0) & (other < 1)
        factor = (other[inside] / one[inside]).median()
        torch.testing.assert_close(other, (one * factor).clamp(0, 1))
        assert 0.7 <= factor <= 1.3
        factors.add(float(factor))
    assert len(factors) == len(images)


@pytest.mark.parametrize('side', [5, 11, 21])
def test_a_wide_blur_is_torchvisions_by_axis(side):
    """With the draws of torchvision's, and what it pads with."""
    image, blurred, after = pixels()[0], [], []
    for blur in (random_blur(side), v2.GaussianBlur((side, side), (0.1, 2.0))):
        torch.manual_seed(0)
        blurred.append(blur(image))
        after.append(torch.rand(1))
    torch.testing.assert_close(*blurred)
    assert isinstance(random_blur(side), BlurByAxis) == (side > 5) and torch.equal(*after)


def test_a_channel_at_its_mean_gives_no_nan():
    """Only with a mean that pixels can have: not the one of ImageNet."""
    images = torch.tensor([0.0, -1.0, -2.0])[None, :, None, None].expand(1, 3, 8, 8)
    view = PhotometricView(**NOTHING | dict(hue=0.1))
    assert torch.isnan(view.transform(images[0])).any()
    assert torch.isfinite(view(images)).all()


def test_image_space_is_the_identity_without_operations():
    images = normalised(pixels())
    view = PhotometricView('image', **NOTHING)(images, MEAN.view(3, 1, 1), STD.view(3, 1, 1))
    torch.testing.assert_close(view, images, rtol=0, atol=2e-6)


def test_image_space_keeps_to_the_range_of_images():
    images = normalised(pixels())
    view = PhotometricView('image')(images, MEAN, STD)
    restored = view * STD.view(3, 1, 1) + MEAN.view(3, 1, 1)
    assert restored.min() > -1e-3 and restored.max() < 255.001 and not torch.equal(view, images)


def test_image_space_without_normalisation():
    images = pixels()
    torch.testing.assert_close(PhotometricView('image', **NOTHING)(images), images, rtol=0, atol=1e-4)


@pytest.mark.parametrize('space', ['reference', 'image'])
def test_each_image_has_draws_of_its_own_from_the_global_generator(space):
    images = normalised(pixels()[:1]).expand(4, -1, -1, -1)
    view = PhotometricView(space)
    torch.manual_seed(0)
    first = view(images, MEAN, STD)
    torch.manual_seed(0)
    assert torch.equal(view(images, MEAN, STD), first)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(view(images, MEAN, STD), first)


def test_errors():
    with pytest.raises(ValueError, match=r"one of \('reference', 'image'\); got 'pixels'"):
        PhotometricView('pixels')
    with pytest.raises(ValueError, match=r'blur must be a number in \[0, 1\]'):
        PhotometricView(blur=1.5)
