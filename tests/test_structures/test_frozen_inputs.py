"""What stands for images whose frozen features are known, and how batches of it are made."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from omh_mmseg.models.data_preprocessor import ViewsDataPreprocessor
from omh_mmseg.structures.frozen_inputs import FrozenInputs, FrozenItem, joined, pixels


def frozen(batch: int = 2, **parts: torch.Tensor) -> FrozenInputs:
    return FrozenInputs(torch.randn(batch, 5, 4, 6), size=(32, 48), **parts)


def test_looks_like_images() -> None:
    inputs = frozen(3)
    assert len(inputs) == 3 and inputs.shape == (3, 3, 32, 48) and inputs.shape[-2:] == (32, 48)


def test_joined() -> None:
    first, second = frozen(mirrored=torch.ones(2, 5, 4, 6)), frozen(3)
    both = joined([first, second])
    assert torch.equal(both.features, torch.cat([first.features, second.features]))
    assert both.mirrored is None and len(both) == 5
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(joined([images, images]), torch.cat([images, images]))
    with pytest.raises(ValueError, match='views of several kinds or sizes'):
        joined([first, images])


def test_flip_needs_the_mirrored_features() -> None:
    inputs = frozen(mirrored=torch.randn(2, 5, 4, 6))
    assert inputs.flip(-1).features is inputs.mirrored and inputs.flip([-1]).flip(-1).features is inputs.features
    with pytest.raises(ValueError, match=r'flipped along \(-2,\) are not cached'):
        inputs.flip(-2)
    with pytest.raises(ValueError, match='without the feature cache'):
        frozen().flip(-1)


def test_pixels() -> None:
    images = torch.randn(2, 3, 32, 48)
    assert pixels(images) is images and pixels(frozen(images=images)) is images
    with pytest.raises(ValueError, match='this step needs the images themselves'):
        pixels(frozen())


@pytest.mark.parametrize('training', [True, False])
def test_preprocessor_treats_samples_as_with_images(training: bool) -> None:
    """Padding of labels and metadata are those of the images; the features come in float32, images normalised."""
    preprocessor = ViewsDataPreprocessor([120.0] * 3, [60.0] * 3, size_divisor=16, test_cfg=dict(size_divisor=16))
    images = [torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8) for _ in range(2)]

    def samples() -> list[SegDataSample]:
        label = torch.arange(600).view(1, 20, 30) % 4
        return [SegDataSample(gt_sem_seg=PixelData(data=label.clone())) for _ in images]

    live = preprocessor(dict(inputs=images, data_samples=samples()), training)
    items = [FrozenItem(torch.randn(5, 4, 4).half(), (20, 30), image=image) for image in images]
    cached = preprocessor(dict(inputs=items, data_samples=samples()), training)
    assert torch.equal(cached['inputs'].images, live['inputs']) and cached['inputs'].size == (32, 32)
    assert cached['inputs'].features.dtype == torch.float32
    for one, other in zip(cached['data_samples'], live['data_samples']):
        assert one.metainfo == other.metainfo and torch.equal(one.gt_sem_seg.data, other.gt_sem_seg.data)
