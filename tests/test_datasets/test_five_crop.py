from __future__ import annotations

import numpy as np
import pytest
from mmengine.dataset import pseudo_collate

from omh_mmseg.datasets import FiveCrop
from omh_mmseg.registry import DATASETS

PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='FiveCropPatch'),
    dict(type='PackSegInputs', meta_keys=('img_path', 'ori_shape', 'img_shape', 'patch_bbox', 'crop_number')),
]
WHOLE = [step for step in PIPELINE if step['type'] != 'FiveCropPatch']


def wrapped(root, pipeline=PIPELINE) -> dict:
    return dict(type='FolderSegDataset', data_root=str(root), split='train', num_classes=4, pipeline=pipeline)


def test_item_is_crop_j_of_image_i(folder):
    root = folder(count=2, size=(41, 63))
    whole = DATASETS.build(wrapped(root, WHOLE))
    data = DATASETS.build(dict(type='FiveCrop', dataset=wrapped(root), ratio=0.5))
    assert len(data) == 10
    corners = [(0, 0), (32, 0), (0, 21), (32, 21), (16, 10)]  # 63 - 31, 41 - 20; 31 / 2 = 15.5 -> 16, 21 / 2 -> 10
    for index in range(10):
        item, source = data[index], whole[index // 5]
        left, top = corners[index % 5]
        assert item['data_samples'].patch_bbox == (left, top, left + 31, top + 20)
        assert item['data_samples'].crop_number == index % 5
        np.testing.assert_array_equal(item['inputs'], source['inputs'][:, top : top + 20, left : left + 31])
        label = source['data_samples'].gt_sem_seg.data[:, top : top + 20, left : left + 31]
        np.testing.assert_array_equal(item['data_samples'].gt_sem_seg.data, label)
        assert item['data_samples'].img_path == source['data_samples'].img_path
        assert item['data_samples'].ori_shape == item['data_samples'].img_shape == (20, 31)


def test_wrapper_contract(folder):
    data = FiveCrop(wrapped(folder(count=2)), lazy_init=True)
    assert not data._fully_initialized
    assert data.metainfo['classes'][3] == 'class_3'
    assert len(data) == 10
    assert data._fully_initialized
    assert data.get_data_info(7)['crop_number'] == 2
    assert data.get_data_info(-1)['sample_idx'] == 9
    assert len(list(data)) == 10
    with pytest.raises(NotImplementedError, match='set `indices` of the wrapped data set'):
        data.get_subset([0])
    assert pseudo_collate([data[0], data[1]])['inputs'][1].shape == (3, 20, 30)


def test_wrong_use(folder):
    root = folder(count=1)
    with pytest.raises(ValueError, match=r'ratio must be a number in \(0, 1\]; got 1.5'):
        FiveCrop(wrapped(root), ratio=1.5)
    with pytest.raises(ValueError, match="FiveCrop needs dict.type='FiveCropPatch'"):
        FiveCrop(wrapped(root, WHOLE))
    with pytest.raises(TypeError, match='must be a config or a data set with get_data_info, got list'):
        FiveCrop([1, 2])
    with pytest.raises(IndexError, match='index 5 is outside a data set of 5 items'):
        FiveCrop(wrapped(root))[5]


def test_truncated_image_names_the_file(folder):
    root = folder(count=1, labels=False)
    path = root / 'images' / 'train' / '000.png'
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(OSError, match='000.png: the image cannot be read'):
        FiveCrop(wrapped(root))[3]
