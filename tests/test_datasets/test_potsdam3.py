from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import mmcv
import mmseg
import numpy as np
import pytest
import scipy.io
from mmengine.config import Config
from mmengine.fileio import get
from PIL import Image

from omh_mmseg.datasets import Potsdam3
from omh_mmseg.datasets.potsdam3 import COLOUR_TO_6
from omh_mmseg.registry import DATASETS

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets' / 'potsdam3.py'
BACKEND = dict(backend='mat_image')
PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow', backend_args=BACKEND),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]
# docs/methods/data.md 5.5: roads 0, buildings 1, low vegetation 2, trees 3, cars 4, clutter 5.
SIX_TO_THREE = {0: 0, 4: 0, 1: 1, 5: 1, 2: 2, 3: 2}


def build(root: Path, **options) -> Potsdam3:
    options = dict(pipeline=PIPELINE, ann_file='labelled_train.txt', serialize_data=False) | options
    return DATASETS.build(dict(type='Potsdam3', data_root=str(root), **options))


@pytest.mark.parametrize('size', [(200, 200), (201, 99)])
def test_patches_of_iic(potsdam, size):
    root = potsdam(size)
    data = build(root)
    assert [Path(data.get_data_info(index)['img_path']).name for index in range(len(data))] == ['2.mat', '0.mat']
    item = data[0]
    stored = scipy.io.loadmat(root / 'potsdam' / 'imgs' / '2.mat')['img']
    assert stored.shape == (*size, 4)
    np.testing.assert_array_equal(item['inputs'].permute(1, 2, 0).numpy(), stored[:, :, 2::-1])  # BGR, as from a PNG
    label = item['data_samples'].gt_sem_seg.data[0].numpy()
    assert label.shape == size
    assert label.ravel()[:7].tolist() == [SIX_TO_THREE[value] for value in range(6)] + [255]


@pytest.mark.parametrize('decoder', ['pillow', 'cv2'])
def test_a_patch_reads_like_its_png(potsdam, tmp_path, decoder):
    path = potsdam() / 'potsdam' / 'imgs' / '0.mat'
    Image.fromarray(scipy.io.loadmat(path)['img'][:, :, :3]).save(tmp_path / 'a.png')
    images = [mmcv.imfrombytes(get(name, BACKEND), backend=decoder) for name in (path, tmp_path / 'a.png')]
    np.testing.assert_array_equal(*images)
    assert images[0].shape == (200, 200, 3)


@pytest.mark.parametrize('value', [6, 254, -1, 300])
def test_unknown_values(potsdam, value):
    root = potsdam()
    path = root / 'potsdam' / 'gt' / '2.mat'
    scipy.io.savemat(path, dict(gt=np.full((200, 200), value, np.int32)))
    with pytest.raises(ValueError, match=rf'{path}: the label holds the value {value}; accepted are 0..5, 255'):
        build(root)[0]


def test_six_surfaces(potsdam):
    root = potsdam()
    values = np.resize(np.array([0, 1, 2, 3, 4, 5, 255]), (200, 200)).astype(np.int32)
    scipy.io.savemat(root / 'potsdam' / 'gt' / '2.mat', dict(gt=values))
    data = build(root, level='surface')
    np.testing.assert_array_equal(data[0]['data_samples'].gt_sem_seg.data[0].numpy(), values)
    assert data.metainfo['classes'][4] == 'car'


def converted(monkeypatch, colours: list[tuple[int, int, int]]) -> np.ndarray:
    """What mmseg's own converter writes for a label with one pixel per colour."""
    path = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'dataset_converters' / 'potsdam.py'
    if not path.is_file():
        pytest.skip(f'mmseg is installed without {path}')
    converter = runpy.run_path(str(path), run_name='converter')
    written = []
    monkeypatch.setattr(mmcv, 'imread', lambda path: np.array([colours], np.uint8)[:, :, ::-1])
    monkeypatch.setattr(mmcv, 'imwrite', lambda image, path: written.append(image))
    arguments = SimpleNamespace(clip_size=len(colours), stride_size=len(colours))
    converter['clip_big_image']('top_potsdam_2_10_label.tif', 'out', arguments, to_label=True)
    return np.concatenate([image[:1] for image in written if image.size])[0]


def test_layout_of_mmseg(tmp_path, monkeypatch):
    colours = [*COLOUR_TO_6, (0, 0, 0), (252, 255, 0)]
    values = converted(monkeypatch, colours)
    assert values[:6].tolist() == [1, 2, 3, 4, 5, 6]
    for split in ('train', 'val'):
        for kind in ('img_dir', 'ann_dir'):
            (tmp_path / kind / split).mkdir(parents=True)
        name = f'2_10_0_0_512_512_{split}.png'
        Image.fromarray(np.full((5, 8, 3), (10, 20, 30), np.uint8)).save(tmp_path / 'img_dir' / split / name)
        Image.fromarray(np.resize(values.astype(np.uint8), (5, 8))).save(tmp_path / 'ann_dir' / split / name)
    data = build(tmp_path, layout='mmseg', split='val', ann_file='')
    assert data.get_data_info(0)['img_path'].endswith('_val.png')
    assert data[0]['inputs'][:, 0, 0].tolist() == [30, 20, 10]
    label = data[0]['data_samples'].gt_sem_seg.data[0].numpy()
    by_colour = [SIX_TO_THREE[COLOUR_TO_6[colour]] for colour in colours[:6]]
    np.testing.assert_array_equal(label, np.tile([*by_colour, 255, 255], (5, 1)))
    Image.fromarray(np.full((5, 8), 7, np.uint8)).save(tmp_path / 'ann_dir' / 'val' / '2_10_0_0_512_512_val.png')
    with pytest.raises(ValueError, match='holds the value 7; accepted are 0..6, 255'):
        data[0]


def test_mat_errors_name_file_and_arrays(potsdam):
    root = potsdam()
    data = build(root)
    image, label = root / 'potsdam' / 'imgs' / '2.mat', root / 'potsdam' / 'gt' / '2.mat'
    good = image.read_bytes()
    scipy.io.savemat(image, dict(image=np.zeros((2, 2, 4), np.uint8), other=1))
    with pytest.raises(ValueError, match=rf"{image} has no array 'img'; its arrays are \['image', 'other'\]"):
        data[0]
    for array, seen in ((np.zeros((200, 200), np.uint8), r'uint8 \(200, 200\)'), (np.ones((2, 2, 4)), 'float64')):
        scipy.io.savemat(image, dict(img=array))
        with pytest.raises(ValueError, match=rf"{image}: the image 'img' must be uint8 with the shape .*{seen}"):
            data[0]
    for content in (good[:300], b'', b'no MATLAB file' * 20):
        image.write_bytes(content)
        with pytest.raises(OSError, match=rf'{image}: the image cannot be read'):
            data[0]
    image.write_bytes(good)
    scipy.io.savemat(label, dict(img=np.zeros((200, 200), np.int32)))
    with pytest.raises(ValueError, match=rf"{label} has no array 'gt'; its arrays are \['img'\]"):
        data[0]
    for array, problem in (
        (np.zeros((200, 200), np.float64), 'must hold whole numbers, this one holds float64'),
        (np.zeros((200, 200, 2), np.int32), 'must have one channel'),
        (np.zeros((100, 200), np.int32), 'the label is 100x200 .height x width., but the image .* is 200x200'),
    ):
        scipy.io.savemat(label, dict(gt=array))
        with pytest.raises(ValueError, match=f'{label}: .*{problem}'):
            data[0]
    label.write_bytes(b'')
    with pytest.raises(OSError, match=f'{label}: the label cannot be read'):
        data[0]


def test_lists_and_layouts(potsdam, tmp_path):
    root = potsdam()
    with pytest.raises(ValueError, match="layout='stego' of Potsdam3 has no folder per split: set ann_file to"):
        build(root, ann_file='')
    with pytest.raises(FileNotFoundError, match=r"no list of images '.*potsdam/train.txt'. layout='stego' looks"):
        build(root, ann_file='train.txt')
    with pytest.raises(FileNotFoundError, match="no folder of images '.*img_dir/train'.*layout='mmseg' looks below"):
        build(root, layout='mmseg', ann_file='')
    (tmp_path / 'potsdam' / 'labelled_train.txt').write_text('0\n17.mat\n')
    with pytest.raises(FileNotFoundError, match=r'labelled_train.txt lists 1 images \(of 2\) that are not in .*: 17'):
        build(root)
    with pytest.raises(FileNotFoundError, match='1 of 1 images have no label <id>.mat in .*potsdam/gt: 3'):
        build(root, ann_file='unlabelled_train.txt')
    assert 'gt_sem_seg' not in build(root, ann_file='unlabelled_train.txt', labels='none')[0]['data_samples']


def test_config_builds_on_a_fixture(potsdam, monkeypatch):
    monkeypatch.setenv('OMH_DATA_ROOT', str(potsdam()))
    cfg = Config.fromfile(str(CONFIG))
    train, val = DATASETS.build(cfg.train_dataloader.dataset), DATASETS.build(cfg.val_dataloader.dataset)
    assert (len(train), len(val)) == (2, 1)
    assert train[0]['inputs'].shape == (3, 224, 224)
    assert val[0]['inputs'].shape == (3, 320, 320)
    # Enlarged by nearest: 1.6 output pixels per input pixel, so that only the stored values occur.
    stored = scipy.io.loadmat(val.get_data_info(0)['img_path'])['img'][:, :, :3]
    expected = np.array(Image.fromarray(stored).resize((320, 320), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(val[0]['inputs'].permute(1, 2, 0).numpy()[:, :, ::-1], expected)
    assert set(np.unique(val[0]['data_samples'].gt_sem_seg.data)) == {0, 1, 2, 255}


def test_names_and_colours():
    assert Potsdam3.METAINFO['classes'] == ('roads and cars', 'buildings and clutter', 'trees and vegetation')
    for colour, number in COLOUR_TO_6.items():
        if list(colour) in Potsdam3.METAINFO['palette']:
            assert Potsdam3.METAINFO['palette'].index(list(colour)) == SIX_TO_THREE[number]
    assert len({tuple(colour) for colour in Potsdam3.METAINFO['palette']}) == 3
