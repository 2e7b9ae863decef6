from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.datasets.transforms import PackSegInputs
from PIL import Image
from torchvision.transforms import InterpolationMode

from omh_mmseg.datasets import CentreCrop, FiveCropPatch, LoadOptionalAnnotations, ResizeShortSide, ResizeToCover
from omh_mmseg.registry import TRANSFORMS

SIZES = [(1024, 2048), (427, 640), (375, 500), (500, 375), (224, 224), (321, 320)]


def item(height: int, width: int, labels: bool = True) -> dict:
    generator = np.random.default_rng(height * 10007 + width)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    results = dict(img=image, img_path='x.png', img_shape=(height, width), ori_shape=(height, width), seg_fields=[])
    if labels:
        results['gt_seg_map'] = generator.integers(0, 27, (height, width)).astype(np.uint8)
        results['seg_fields'].append('gt_seg_map')
    return results


def assert_like_torchvision(height: int, width: int, size: int, interpolation: str) -> None:
    results = item(height, width)
    image, label = Image.fromarray(results['img']), Image.fromarray(results['gt_seg_map'])
    mode = InterpolationMode(interpolation)
    expected = reference.center_crop(reference.resize(image, size, mode), size)
    expected_label = reference.center_crop(reference.resize(label, size, InterpolationMode.NEAREST), size)
    results = CentreCrop(size)(ResizeShortSide(size, interpolation)(results))
    np.testing.assert_array_equal(results['img'], np.array(expected))
    np.testing.assert_array_equal(results['gt_seg_map'], np.array(expected_label))


@pytest.mark.parametrize('interpolation', ['nearest', 'bilinear'])
@pytest.mark.parametrize('size', [224, 320])
@pytest.mark.parametrize('shape', SIZES)
def test_resize_and_crop_equal_pillow(shape, size, interpolation):
    assert_like_torchvision(*shape, size, interpolation)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(8, 160), width=st.integers(8, 160), size=st.integers(4, 96))
def test_resize_and_crop_equal_pillow_at_any_size(height, width, size):
    assert_like_torchvision(height, width, size, 'nearest')


def assert_like_pillow(height: int, width: int, size: int) -> None:
    """Pillow alone: docs/methods/data.md 5.6 gives the size and the offset."""
    results = item(height, width)
    short, longer = min(height, width), max(height, width)
    other = size * longer // short
    new_width, new_height = (other, size) if width >= height else (size, other)
    # Half to even: an odd rest r leaves (r - 1) / 2 or (r + 1) / 2, whichever is even.
    left, top = ((rest + (rest % 4 == 3)) // 2 for rest in (new_width - size, new_height - size))
    box = (left, top, left + size, top + size)
    done = CentreCrop(size)(ResizeShortSide(size)(dict(results)))
    for key in ('img', 'gt_seg_map'):
        resized = Image.fromarray(results[key]).resize((new_width, new_height), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(done[key], np.array(resized.crop(box)), err_msg=f'{height}x{width}, {key}')


@pytest.mark.parametrize('size', [224, 320])
@pytest.mark.parametrize('shape', [(1024, 2048), (427, 640), (375, 500)])
def test_images_of_the_data_sets_equal_pillow(shape, size):
    assert_like_pillow(*shape, size)
    assert_like_pillow(*shape[::-1], size)


def test_two_hundred_random_sizes_equal_pillow():
    generator = np.random.default_rng(0)
    shapes = {tuple(shape) for shape in generator.integers(40, 400, (230, 2)).tolist()}
    assert len(shapes) >= 200
    assert len({(height % 2, width % 2) for height, width in shapes}) == 4
    for height, width in sorted(shapes):
        assert_like_pillow(height, width, (224, 320)[(height + width) % 2])


@pytest.mark.parametrize(('shape', 'expected'), [((375, 500), (320, 426)), ((427, 640), (320, 479))])
def test_long_side_is_truncated(shape, expected):
    assert ResizeShortSide(320)(item(*shape))['img'].shape[:2] == expected


def test_metainfo_of_resize_and_crop_maps_back():
    results = CentreCrop((200, 300))(ResizeShortSide(320)(item(427, 640)))
    assert results['scale_factor'] == (479 / 640, 320 / 427)
    assert results['scale'] == (479, 320)
    assert results['img_shape'] == (200, 300) == results['img'].shape[:2]
    assert results['crop_bbox'] == (90, 60, 390, 260)  # (479 - 300) / 2 = 89.5 goes to the even 90
    packed = PackSegInputs(meta_keys=('img_path', 'ori_shape', 'img_shape', 'scale_factor', 'crop_bbox'))(results)
    assert packed['inputs'].shape == (3, 200, 300)
    assert packed['data_samples'].gt_sem_seg.data.shape == (1, 200, 300)
    assert packed['data_samples'].crop_bbox == (90, 60, 390, 260)


def test_without_labels():
    results = CentreCrop(32)(ResizeShortSide(40)(item(60, 80, labels=False)))
    assert results['img'].shape == (32, 32, 3)
    assert 'gt_sem_seg' not in PackSegInputs()(results)['data_samples']


@pytest.mark.parametrize('shape', [(375, 500), (500, 375), (360, 480), (97, 1024)])
@pytest.mark.parametrize('divisor', [14, 16, 32])
def test_divisor(shape, divisor):
    height, width = ResizeShortSide(240, 'bilinear', divisor)(item(*shape))['img'].shape[:2]
    assert height % divisor == width % divisor == 0
    longer = int(240 * max(shape) / min(shape))
    assert abs(max(height, width) - longer) <= divisor / 2
    assert abs(min(height, width) - 240) <= divisor / 2


@settings(max_examples=60, deadline=None)
@given(height=st.integers(8, 200), width=st.integers(8, 200), box=st.tuples(st.integers(4, 90), st.integers(4, 90)))
def test_cover_is_the_smallest_that_covers(height, width, box):
    results = ResizeToCover(box)(item(height, width))
    new_height, new_width = results['img'].shape[:2]
    assert new_height >= box[0]
    assert new_width >= box[1]
    assert new_height == box[0] or new_width == box[1]
    assert abs(new_height - height * max(box[0] / height, box[1] / width)) <= 1
    assert CentreCrop(box)(results)['img'].shape[:2] == box


def test_wrong_use():
    with pytest.raises(ValueError, match='interpolation .cubic. is unknown; choose one of'):
        ResizeShortSide(10, 'cubic')
    with pytest.raises(ValueError, match=r'ResizeToCover: size must be a whole number or several in \[1, 16384\]'):
        ResizeToCover((0, 3))
    with pytest.raises(ValueError, match='ResizeShortSide: divisor must be'):
        ResizeShortSide(10, divisor=0)
    with pytest.raises(ValueError, match='size must be one number or'):
        CentreCrop((3, 3, 3))
    with pytest.raises(ValueError, match='x.png: the image is 20x30 here, smaller than the crop 24x24; resize first'):
        CentreCrop(24)(item(20, 30))
    floating = item(20, 30) | dict(img=np.zeros((20, 30, 3), np.float32))
    with pytest.raises(ValueError, match='takes uint8 images, got float32'):
        ResizeShortSide(10)(floating)
    other_label = item(20, 30) | dict(gt_seg_map=np.zeros((10, 30), np.uint8))
    with pytest.raises(ValueError, match='load labels earlier'):
        CentreCrop(8)(other_label)


@pytest.mark.parametrize('shape', [(40, 60), (41, 63), (7, 9)])
@pytest.mark.parametrize('ratio', [0.5, 0.7])
def test_five_crops_equal_torchvision(shape, ratio):
    results = item(*shape)
    image = torch.from_numpy(results['img']).permute(2, 0, 1)
    expected = reference.five_crop(image, [int(shape[0] * ratio), int(shape[1] * ratio)])
    for number, crop in enumerate(expected):
        cut = FiveCropPatch()(item(*shape) | dict(crop_number=number, crop_ratio=ratio))
        np.testing.assert_array_equal(cut['img'], crop.permute(1, 2, 0).numpy())
        left, top, right, bottom = cut['patch_bbox']
        np.testing.assert_array_equal(cut['gt_seg_map'], results['gt_seg_map'][top:bottom, left:right])
        assert cut['img_shape'] == cut['ori_shape'] == cut['img'].shape[:2]


def test_five_crop_wrong_use():
    with pytest.raises(ValueError, match="needs the data set wrapper: dict.type='FiveCrop'"):
        FiveCropPatch()(item(8, 8))
    with pytest.raises(ValueError, match='x.png: 1x8 is too small for five crops'):
        FiveCropPatch()(item(1, 8) | dict(crop_number=0, crop_ratio=0.5))


def test_label_loader_leaves_unlabelled_items_alone():
    assert LoadOptionalAnnotations()(dict(img_path='a.png')) == dict(img_path='a.png')


def test_label_loader_without_a_known_set_and_with_a_map(tmp_path):
    label = np.array([[0, 7, 200], [255, 3, 0]], np.uint8)
    Image.fromarray(label).save(tmp_path / 'a.png')
    results = dict(seg_map_path=str(tmp_path / 'a.png'))
    np.testing.assert_array_equal(LoadOptionalAnnotations()(dict(results))['gt_seg_map'], label)
    mapped = LoadOptionalAnnotations()(results | dict(label_map={0: 4, 7: 1, 200: 255, 3: 0}, num_classes=2))
    np.testing.assert_array_equal(mapped['gt_seg_map'], [[4, 1, 255], [255, 0, 4]])
    with pytest.raises(ValueError, match='holds the value 200; accepted are 0, 3, 7, 255'):
        LoadOptionalAnnotations()(results | dict(label_map={0: 4, 7: 1, 3: 0}))


def test_sixteen_bit_label_is_not_cut_to_eight(tmp_path):
    Image.fromarray(np.full((2, 2), 257, np.uint16)).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match='holds the value 257'):
        LoadOptionalAnnotations()(dict(seg_map_path=str(tmp_path / 'a.png'), num_classes=4))


@pytest.mark.parametrize(
    'config',
    [
        dict(type='ResizeShortSide', size=8, interpolation='nearest'),
        dict(type='ResizeToCover', size=(8, 9)),
        dict(type='CentreCrop', size=8),
        dict(type='FiveCropPatch'),
        dict(type='LoadOptionalAnnotations'),
    ],
)
def test_registered_with_a_stable_repr(config):
    """The neighbour index identifies a pipeline by these texts."""
    text = repr(TRANSFORMS.build(config))
    assert text.startswith(config['type'])
    assert ' at 0x' not in text
    assert all(str(value) in text for value in config.values())
