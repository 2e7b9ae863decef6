from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from omh_mmseg.datasets import FolderSegDataset
from omh_mmseg.registry import DATASETS

PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]


def build(root: Path, **options) -> FolderSegDataset:
    options = dict(split='train', num_classes=4, pipeline=PIPELINE) | options
    return DATASETS.build(dict(type='FolderSegDataset', data_root=str(root), **options))


def test_labels_and_images_belong_together(folder):
    root = folder(count=3)
    data = build(root)
    assert len(data) == 3
    for item in data:
        stem = Path(item['data_samples'].img_path).stem
        label = np.array(Image.open(root / 'labels' / 'train' / f'{stem}.png'))
        image = np.array(Image.open(root / 'images' / 'train' / f'{stem}.png'))
        np.testing.assert_array_equal(item['data_samples'].gt_sem_seg.data[0].numpy(), label)
        np.testing.assert_array_equal(item['inputs'].permute(1, 2, 0).numpy()[..., ::-1], image)
        assert item['data_samples'].ori_shape == item['data_samples'].img_shape == (40, 60)


def test_without_labels(folder):
    data = build(folder(labels=False))
    assert all('seg_map_path' not in data.get_data_info(index) for index in range(len(data)))
    assert all('gt_sem_seg' not in item['data_samples'] for item in data)


def test_labels_none_ignores_labels(folder):
    assert 'gt_sem_seg' not in build(folder(), labels='none')[0]['data_samples']
    assert 'gt_sem_seg' not in build(folder(), data_prefix=dict(seg_map_path=None))[0]['data_samples']


def test_labels_required_without_labels(folder):
    with pytest.raises(FileNotFoundError, match="no label folder .*labels.train.*labels='none'"):
        build(folder(labels=False), labels='required')


@pytest.mark.parametrize('suffix', ['.jpg', '.JPEG', '.png', '.bmp', '.TIF', '.webp'])
def test_suffixes_in_any_case(folder, suffix):
    assert len(build(folder(count=2, suffix=suffix))) == 2


def test_flat_folder_without_labels(tmp_path):
    for name in ('b.jpg', 'a.png', 'notes.txt', '._a.png'):
        Image.new('RGB', (8, 8)).save(tmp_path / name, format='PNG')
    data = build(tmp_path)
    assert [Path(data.get_data_info(index)['img_path']).name for index in range(len(data))] == ['a.png', 'b.jpg']


def test_unsplit_images_and_labels(folder):
    root = folder(count=2)
    for kind in ('images', 'labels'):
        for path in (root / kind / 'train').iterdir():
            shutil.move(path, root / kind / path.name)
        (root / kind / 'train').rmdir()
    data = build(root, split='val')
    assert len(data) == 2
    assert 'gt_sem_seg' in data[0]['data_samples']


def test_nested_folders_and_own_prefix(folder):
    root = folder(count=2)
    (root / 'images' / 'train' / 'city').mkdir()
    (root / 'labels' / 'train' / 'city').mkdir()
    for kind in ('images', 'labels'):
        shutil.copy(root / kind / 'train' / '000.png', root / kind / 'train' / 'city' / '000.png')
    assert len(build(root)) == 3
    data = build(root, split='', data_prefix=dict(img_path='images/train/city', seg_map_path='labels/train/city'))
    assert len(data) == 1
    assert 'gt_sem_seg' in data[0]['data_samples']


def test_ann_file_selects_and_names_absent_images(folder):
    root = folder(count=4)
    (root / 'some.txt').write_text('002\n000\n\n')
    data = build(root, ann_file='some.txt')
    assert [Path(data.get_data_info(index)['img_path']).stem for index in range(2)] == ['000', '002']
    (root / 'some.txt').write_text('002\nmissing\n')
    with pytest.raises(FileNotFoundError, match=r'some.txt lists 1 images \(of 2\) .*: missing \(line 2\)'):
        build(root, ann_file='some.txt')


def test_class_names_from_json_and_for_tools(folder):
    root = folder()
    names = ['sky', 'road', 'tree', 'car']
    palette = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    (root / 'classes.json').write_text(json.dumps(dict(classes=names, palette=palette)))
    data = build(root, num_classes=None)
    assert data.metainfo['classes'] == tuple(names)
    assert data.metainfo['palette'] == palette
    assert data.METAINFO['classes'] == tuple(names)
    assert FolderSegDataset.METAINFO == {}


def test_class_names_from_config_win(folder):
    root = folder()
    (root / 'classes.json').write_text(json.dumps(dict(classes=['a', 'b', 'c', 'd'])))
    data = build(root, num_classes=None, metainfo=dict(classes=['w', 'x', 'y', 'z']))
    assert data.metainfo['classes'] == ('w', 'x', 'y', 'z')
    assert len(data.metainfo['palette']) == 4


def test_numbered_classes(folder):
    data = build(folder())
    assert data.metainfo['classes'] == ('class_0', 'class_1', 'class_2', 'class_3')
    assert len({tuple(colour) for colour in data.metainfo['palette']}) == 4


def test_number_of_classes_unknown(folder):
    with pytest.raises(ValueError, match='the number of classes is unknown: give num_classes.*classes.json'):
        build(folder(), num_classes=None)


def test_more_clusters_than_names_warns(folder):
    root = folder()
    with pytest.warns(UserWarning, match='num_classes is 6, but metainfo names 4 classes'):
        data = build(root, num_classes=6, metainfo=dict(classes=list('abcd')))
    assert data.metainfo['classes'] == ('a', 'b', 'c', 'd', 'class_4', 'class_5')


def test_more_clusters_than_classes_on_disk_warns(folder):
    with pytest.warns(UserWarning, match=r'num_classes is 9, but the 3 labels looked at .* 0\.\.3 \(4 classes\)'):
        build(folder(), num_classes=9)


def test_right_number_of_classes_is_silent(folder):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        build(folder(), num_classes=4)


def test_fewer_classes_than_names(folder):
    with pytest.raises(ValueError, match='num_classes=3, but metainfo names 4 classes'):
        build(folder(), num_classes=3, metainfo=dict(classes=list('abcd')))


@pytest.mark.parametrize('text', ['{"classes": ', '[1, 2]', '{"classes": []}', '{"names": ["a"]}'])
def test_damaged_classes_json(folder, text):
    root = folder()
    (root / 'classes.json').write_text(text)
    with pytest.raises(ValueError, match='classes.json (is not JSON|must be)'):
        build(root, num_classes=None)


def test_missing_classes_file_and_wrong_palette(folder):
    with pytest.raises(FileNotFoundError, match="classes_file '.*names.json' does not exist"):
        build(folder(), classes_file='names.json')
    with pytest.raises(ValueError, match='palette of metainfo must be at most 2 RGB triples'):
        build(folder(), num_classes=2, metainfo=dict(classes=['a', 'b'], palette=[[0, 0, 0]] * 3))
    with pytest.raises(ValueError, match=r"names a class twice: \['a'\]"):
        build(folder(), num_classes=2, metainfo=dict(classes=['a', 'a']))


def test_missing_folder_names_the_ways_to_set_it(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.*cfg-options data_root=FOLDER.*OMH_DATA_ROOT'):
        build(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='needs data_root'):
        DATASETS.build(dict(type='FolderSegDataset', num_classes=2))


def test_empty_folder(folder, tmp_path):
    (tmp_path / 'images' / 'train').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='no images in .*images.train: it has no file ending in'):
        build(tmp_path)
    with pytest.raises(FileNotFoundError, match="no images for split 'test': looked for the folders .*images.test"):
        build(folder(split='train'), split='test')


def test_some_labels_missing(folder):
    root = folder(count=5)
    for number in (1, 3):
        (root / 'labels' / 'train' / f'{number:03d}.png').unlink()
    with pytest.raises(FileNotFoundError, match="2 of 5 images have no label: .*001.png, .*003.png.*labels='none'"):
        build(root)


def test_duplicate_stems(folder):
    root = folder(count=1)
    Image.new('RGB', (60, 40)).save(root / 'images' / 'train' / '000.jpg')
    with pytest.raises(ValueError, match=r"000\.jpg and .*000\.png have the same stem '000'"):
        build(root)


def test_label_out_of_range_is_found_at_once(folder):
    with pytest.raises(ValueError, match=r'train/00\d.png: the label holds the value 3; accepted are 0\.\.2, 255'):
        build(folder(), num_classes=3)


def test_label_out_of_range_is_found_when_loaded(folder):
    root = folder(count=40)
    label = np.full((40, 60), 77, np.uint8)
    Image.fromarray(label).save(root / 'labels' / 'train' / '021.png')
    data = build(root)
    with pytest.raises(ValueError, match=r'021.png: the label holds the value 77; accepted are 0\.\.3, 255'):
        data[21]


def test_label_of_another_size(folder):
    root = folder()
    Image.fromarray(np.zeros((40, 61), np.uint8)).save(root / 'labels' / 'train' / '000.png')
    with pytest.raises(ValueError, match=r'000.png: the label is 40x61 .* but the image .*000.png is 40x60'):
        build(root)


def test_colour_label(folder):
    root = folder()
    Image.new('RGB', (60, 40)).save(root / 'labels' / 'train' / '000.png')
    with pytest.raises(ValueError, match=r'000.png: a label must have one channel .* \(40, 60, 3\)'):
        build(root)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.tif', '.webp'])
@pytest.mark.parametrize('kept', [0.0, 0.02, 0.6])
def test_truncated_image_names_the_file(folder, suffix, kept):
    root = folder(count=2, labels=False, suffix=suffix)
    path = root / 'images' / 'train' / f'001{suffix}'
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    data = build(root)
    data[0]
    with pytest.raises(OSError, match=f'001{suffix}: the image cannot be read'):
        data[1]


def test_unreadable_image_with_the_cv2_loader(folder):
    root = folder(count=1, labels=False)
    (root / 'images' / 'train' / '000.png').write_text('no image')
    with pytest.raises(OSError, match='000.png: the image cannot be read'):
        build(root, pipeline=[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')])[0]


def test_truncated_label_names_the_label(folder):
    root = folder(count=40)
    path = root / 'labels' / 'train' / '021.png'
    path.write_bytes(path.read_bytes()[:200])
    data = build(root)
    with pytest.raises(OSError, match='labels.train.021.png: the label cannot be read'):
        data[21]


def test_palette_png_label_and_reduce_zero_label(folder):
    root = folder()
    path = root / 'labels' / 'train' / '000.png'
    label = np.array(Image.open(path))
    indexed = Image.fromarray(label, mode='P')
    indexed.putpalette([7] * 768)
    indexed.save(path)
    np.testing.assert_array_equal(build(root)[0]['data_samples'].gt_sem_seg.data[0].numpy(), label)
    reduced = build(root, reduce_zero_label=True)[0]['data_samples'].gt_sem_seg.data[0].numpy()
    np.testing.assert_array_equal(reduced, np.where((label == 0) | (label == 255), 255, label.astype(int) - 1))


def test_lazy_init_and_indices(folder):
    data = build(folder(count=5), lazy_init=True, indices=2)
    assert data.metainfo['classes'][0] == 'class_0'
    data.full_init()
    assert len(data) == 2


def test_camvid(shared_dir, monkeypatch):
    monkeypatch.setenv('OMH_DATA_ROOT', str(shared_dir / 'data' / 'camvid'))
    cfg = Config.fromfile(str(Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets' / 'folder.py'))
    train = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(train) == 367
    assert train[0]['inputs'].shape == (3, 240, 320)
    val = DATASETS.build(cfg.val_dataloader.dataset)
    assert len(val) == 101
    assert val[0]['inputs'].shape == (3, 240, 320)
    assert val[0]['data_samples'].gt_sem_seg.shape == (360, 480)


def test_labels_are_as_large_as_their_images(folder, monkeypatch):
    """What `max_pixels` allows of an image it allows of its label, and Pillow's own limit is out of play."""
    monkeypatch.setattr('PIL.Image.MAX_IMAGE_PIXELS', 100)
    monkeypatch.setattr('omh_mmseg.datasets.label_files.MAX_PIXELS', 1000)
    pipeline = [dict(type='LoadImageFromFile', _scope_='omh_mmseg'), dict(type='LoadOptionalAnnotations')]
    root = folder(count=1, size=(40, 60))
    settings = dict(type='FolderSegDataset', data_root=str(root), split='train', num_classes=4, pipeline=pipeline)
    assert DATASETS.build(settings)[0]['gt_seg_map'].shape == (40, 60)
    Image.fromarray(np.zeros((41, 60), np.uint8)).save(root / 'labels' / 'train' / '000.png')
    with pytest.raises(ValueError, match='000.png: the label has 60 x 41 pixels, more than its image and than'):
        DATASETS.build(settings)
