from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample

from omh_mmseg.models.data_preprocessor import ViewsDataPreprocessor
from omh_mmseg.registry import MODELS

NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)


def image(height: int = 6, width: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def sample(height: int = 6, width: int = 8, labels: bool = True) -> SegDataSample:
    result = SegDataSample(metainfo=dict(img_path='a.png', ori_shape=(height, width), img_shape=(height, width)))
    if labels:
        result.gt_sem_seg = PixelData(data=torch.ones(1, height, width, dtype=torch.int64))
    return result


def build(**options) -> ViewsDataPreprocessor:
    return MODELS.build(dict(type='ViewsDataPreprocessor', **NORMALISATION) | options)


@pytest.mark.parametrize('training', [False, True])
def test_a_list_gives_what_mmseg_gives(training):
    theirs = SegDataPreProcessor(size_divisor=1, **NORMALISATION)
    data = dict(inputs=[image(), image(seed=1)], data_samples=[sample(), sample()])
    expected = theirs(dict(inputs=list(data['inputs']), data_samples=[sample(), sample()]), training)
    result = build()(data, training)
    torch.testing.assert_close(result['inputs'], expected['inputs'])
    first = (data['inputs'][0].flip(0).float() - torch.tensor(NORMALISATION['mean']).view(3, 1, 1)) / torch.tensor(
        NORMALISATION['std']
    ).view(3, 1, 1)
    torch.testing.assert_close(result['inputs'][0], first)
    torch.testing.assert_close(result['data_samples'][1].gt_sem_seg.data, expected['data_samples'][1].gt_sem_seg.data)


@pytest.mark.parametrize('training', [False, True])
def test_views_are_each_treated_like_a_list(training):
    anchors, neighbours = [image(), image(seed=1)], [image(seed=2), image(seed=3)]
    views = dict(anchor=anchors, neighbour=neighbours)
    result = build()(dict(inputs=views, data_samples=[sample(), sample()]), training)
    for name, images in dict(anchor=anchors, neighbour=neighbours).items():
        alone = build()(dict(inputs=images, data_samples=[sample(), sample()]), training)
        torch.testing.assert_close(result['inputs'][name], alone['inputs'])
    assert len(result['data_samples']) == 2


def test_padding_in_training_covers_labels_and_views():
    views = dict(anchor=[image(6, 8), image(5, 8)], neighbour=[image(6, 7), image(6, 8)])
    result = build(size_divisor=4)(dict(inputs=views, data_samples=[sample(6, 8), sample(5, 8)]), True)
    assert result['inputs']['anchor'].shape == result['inputs']['neighbour'].shape == (2, 3, 8, 8)
    label = result['data_samples'][1].gt_sem_seg.data
    assert label.shape == (1, 8, 8)
    assert (label[0, 5:] == 255).all()
    assert (label[0, :5] == 1).all()
    assert result['data_samples'][1].padding_size == (0, 0, 0, 3)


def test_samples_without_labels_in_training():
    samples = [sample(labels=False), sample(7, 8)]
    result = build()(dict(inputs=[image(), image(7, 8)], data_samples=samples), True)
    assert result['inputs'].shape == (2, 3, 7, 8)
    assert 'gt_sem_seg' not in result['data_samples'][0]
    assert result['data_samples'][0].pad_shape == (7, 8)
    assert result['data_samples'][1].gt_sem_seg.shape == (7, 8)


def test_benchmark_gives_test_data_with_training_true():
    """The label of a test item has the original size, the image that of the network."""
    item = dict(inputs=[image(6, 8)], data_samples=[sample(12, 16)])
    result = build()(item, True)
    assert result['inputs'].shape == (1, 3, 6, 8)
    assert result['data_samples'][0].gt_sem_seg.shape == (12, 16)


def test_get_flops_gives_one_image():
    result = build()(dict(inputs=[torch.rand(3, 6, 8)], data_samples=[SegDataSample(metainfo=dict(ori_shape=(6, 8)))]))
    assert result['inputs'].shape == (1, 3, 6, 8)


def test_without_samples():
    for training in (False, True):
        assert build()(dict(inputs=[image()]), training)['data_samples'] is None


def test_padding_at_test():
    result = build(test_cfg=dict(size_divisor=32))(dict(inputs=[image()], data_samples=[sample()]))
    assert result['inputs'].shape == (1, 3, 32, 32)
    assert result['data_samples'][0].img_padding_size == (0, 24, 0, 26)


def test_wrong_input():
    with pytest.raises(ValueError, match=r'one size outside training, got \[\(5, 8\), \(6, 8\)\]; use batch_size=1'):
        build()(dict(inputs=[image(), image(5, 8)], data_samples=[sample(), sample()]))
    with pytest.raises(ValueError, match="equally many images, got {'anchor': 2, 'neighbour': 1}"):
        build()(dict(inputs=dict(anchor=[image(), image()], neighbour=[image()]), data_samples=[sample(), sample()]))
    with pytest.raises(ValueError, match='the batch holds no images'):
        build()(dict(inputs=[], data_samples=[]))


def bytes_of_the_hosts(pixels: torch.Tensor) -> torch.Tensor:
    """BGR of RGB bytes: to [0, 1], normalised, back, times 255, truncated, each step in single precision."""
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return (((pixels.float() / 255 - mean) / std * std + mean) * 255).byte().flip(0)


def test_bytes_of_a_normalised_image_are_those_of_the_hosts():
    """docs/methods/evaluation.md 6.5: taken back from the normalisation and truncated, every value of every channel."""
    rgb = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256).contiguous()
    preprocessor = build()
    result = preprocessor.to_bgr_bytes(preprocessor(dict(inputs=[rgb.flip(0)]))['inputs'][0])
    assert result.dtype == torch.uint8 and torch.equal(result, bytes_of_the_hosts(rgb))
    lowered = result.int() - rgb.flip(0).int()
    assert set(lowered.unique().tolist()) == {-1, 0} and 0.1 < -lowered.float().mean() < 0.6


@pytest.mark.parametrize('bgr_to_rgb', [False, True])
def test_bytes_of_an_image_that_was_not_normalised(bgr_to_rgb):
    preprocessor = build(mean=None, std=None, bgr_to_rgb=bgr_to_rgb)
    result = preprocessor.to_bgr_bytes(preprocessor(dict(inputs=[image()]))['inputs'][0] + 0.3)
    assert torch.equal(result, image())
