from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import CityscapesDataset
from PIL import Image

from omh_mmseg.datasets import Cityscapes27, LoadOptionalAnnotations
from omh_mmseg.registry import DATASETS

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets' / 'cityscapes27.py'
PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]
# docs/methods/data.md B.2, typed from the page.
EXPECTED = {
    7: 'road', 8: 'sidewalk', 9: 'parking', 10: 'rail track', 11: 'building', 12: 'wall', 13: 'fence', 14: 'guard rail',
    15: 'bridge', 16: 'tunnel', 17: 'pole', 18: 'polegroup', 19: 'traffic light', 20: 'traffic sign', 21: 'vegetation',
    22: 'terrain', 23: 'sky', 24: 'person', 25: 'rider', 26: 'car', 27: 'truck', 28: 'bus', 29: 'caravan',
    30: 'trailer', 31: 'train', 32: 'motorcycle', 33: 'bicycle',
}  # fmt: skip


def build(root: Path, **options) -> Cityscapes27:
    options = dict(pipeline=PIPELINE, serialize_data=False) | options
    return DATASETS.build(dict(type='Cityscapes27', data_root=str(root), **options))


def stems(data: Cityscapes27) -> list[str]:
    return [Path(data.get_data_info(index)['img_path']).name for index in range(len(data))]


@pytest.mark.parametrize('size', [(64, 128), (65, 129)])
@pytest.mark.parametrize('layout', ['stego', 'mmseg'])
def test_every_label_id(cityscapes, layout, size):
    root = cityscapes(size)
    data = build(root if layout == 'stego' else root / 'cityscapes', layout=layout)
    item = data[0]
    assert item['inputs'].shape == (3, *size)
    label = item['data_samples'].gt_sem_seg.data[0].numpy()
    assert label.shape == size
    assert label.ravel()[:7].tolist() == [255] * 7
    assert [data.metainfo['classes'][value] for value in label.ravel()[7:34]] == list(EXPECTED.values())
    assert label.ravel()[34] == 255


def test_licence_plates_are_ignored(tmp_path):
    """Their id -1 is 255 in uint8; labels that can hold it are mapped too."""
    assert np.array(-1).astype(np.uint8) == 255
    Image.fromarray(np.array([[-1, 6], [7, 33]], np.int32)).save(tmp_path / 'a.tif')
    mapping = Cityscapes27(layout='mmseg', lazy_init=True)._value_map()
    label = LoadOptionalAnnotations()(dict(seg_map_path=str(tmp_path / 'a.tif'), label_map=mapping))['gt_seg_map']
    np.testing.assert_array_equal(label, [[255, 255], [0, 26]])


@pytest.mark.parametrize('value', [34, 100, 254])
def test_unknown_values(cityscapes, value):
    root = cityscapes()
    (path,) = root.glob('cityscapes/gtFine/train/aachen/*000000*labelIds.png')
    Image.fromarray(np.full((64, 129), value, np.uint8)).save(path)
    with pytest.raises(ValueError, match=rf'{path}: .*holds the value {value}; accepted are -1..33, 255'):
        build(root)[0]


def test_names_and_colours_are_the_official_ones():
    assert list(Cityscapes27.METAINFO['classes']) == list(EXPECTED.values())
    colours = dict(zip(Cityscapes27.METAINFO['classes'], Cityscapes27.METAINFO['palette'], strict=True))
    for name, colour in zip(CityscapesDataset.METAINFO['classes'], CityscapesDataset.METAINFO['palette'], strict=True):
        assert colours[name] == colour
    shared = [name for name, colour in colours.items() if Counter(map(tuple, colours.values()))[tuple(colour)] > 1]
    assert shared == ['pole', 'polegroup']


def test_order_and_list(cityscapes, tmp_path):
    root = cityscapes()
    assert stems(build(root)) == [
        f'{city}_{number:06d}_000019_leftImg8bit.png' for city in ('aachen', 'zurich') for number in range(2)
    ]
    (tmp_path / 'cityscapes' / 'few.txt').write_text(
        'zurich/zurich_000001_000019\naachen/aachen_000000_000019_leftImg8bit.png\n'
    )
    assert stems(build(root, ann_file='few.txt')) == [
        'zurich_000001_000019_leftImg8bit.png', 'aachen_000000_000019_leftImg8bit.png'
    ]  # fmt: skip
    (tmp_path / 'more.txt').write_text('aachen/aachen_000000_000019\naachen/aachen_000009_000019\n')
    with pytest.raises(FileNotFoundError, match=r'more.txt lists 1 images \(of 2\) .*: aachen/aachen_000009_000019'):
        build(root, ann_file=str(tmp_path / 'more.txt'))


def test_images_outside_the_list_are_not_opened(cityscapes, tmp_path):
    root = cityscapes()
    for path in root.glob('cityscapes/leftImg8bit/train/zurich/*'):
        path.write_text('broken, and not in the list')
    (tmp_path / 'few.txt').write_text('aachen/aachen_000000_000019\n')
    assert len([data['inputs'] for data in build(root, ann_file=str(tmp_path / 'few.txt'))]) == 1


def test_missing_label(cityscapes):
    root = cityscapes()
    (path,) = root.glob('cityscapes/gtFine/train/zurich/*000001*labelIds.png')
    path.unlink()
    with pytest.raises(FileNotFoundError, match='1 of 4 images have no label <id>_gtFine_labelIds.png in .*: zurich/'):
        build(root)
    assert len(build(root, labels='none')) == 4


def test_wrong_layout_says_what_was_looked_for(cityscapes, tmp_path):
    root = cityscapes()
    with pytest.raises(
        FileNotFoundError,
        match="no folder of images '.*leftImg8bit/train'. layout='mmseg' looks below data_root=.* for "
        "leftImg8bit/train, gtFine/train.*set data_root or layout .* The folders of layout='stego' are there",
    ):
        build(root, layout='mmseg')
    (tmp_path / 'flat' / 'leftImg8bit' / 'train').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no \*_leftImg8bit.png files in '.*flat/leftImg8bit/train'"):
        build(tmp_path / 'flat', layout='mmseg')
    with pytest.raises(ValueError, match='maps the values of its labels by a table; leave reduce_zero_label out'):
        build(root, reduce_zero_label=True)


def test_chosen_classes(cityscapes):
    data = build(cityscapes(), metainfo=dict(classes=['sky', 'road']))
    label = data[0]['data_samples'].gt_sem_seg.data[0].numpy().ravel()[:35]
    assert [label[23], label[7]] == [0, 1]
    assert Counter(label.tolist()) == {0: 1, 1: 1, 255: 33}


def test_categories(cityscapes):
    data = build(cityscapes(), level='category')
    label = data[0]['data_samples'].gt_sem_seg.data[0].numpy().ravel()[:35]
    assert label.tolist() == [255] * 7 + [0] * 4 + [1] * 6 + [2] * 4 + [3] * 2 + [4] + [5] * 2 + [6] * 8 + [255]
    assert data.metainfo['classes'][4] == 'sky'


def test_config_builds_on_a_fixture(cityscapes, monkeypatch):
    root = cityscapes((128, 256))
    monkeypatch.setenv('OMH_DATA_ROOT', str(root))
    cfg = Config.fromfile(str(CONFIG))
    train, val = DATASETS.build(cfg.train_dataloader.dataset), DATASETS.build(cfg.val_dataloader.dataset)
    assert (len(train), len(val)) == (20, 4)
    assert train[7]['inputs'].shape == (3, 224, 224)
    assert train[7]['data_samples'].patch_bbox == (0, 64, 128, 128)
    assert val[0]['inputs'].shape == (3, 320, 320)
    assert val[0]['data_samples'].gt_sem_seg.shape == (320, 320)
