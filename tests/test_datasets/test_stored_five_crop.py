"""Crops cut beforehand: the folder that the command makes, and training on it."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image

from omh_mmseg.datasets import FiveCrop
from omh_mmseg.datasets.fingerprint import dataset_fingerprint
from omh_mmseg.datasets.five_crop.stored import CropManifest
from omh_mmseg.preparation import five_crop as module
from omh_mmseg.preparation.five_crop import describe_five_crop, prepare_five_crop
from omh_mmseg.registry import DATASETS

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'prepare.py'
PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='FiveCropPatch'),
    dict(type='ResizeShortSide', size=16, interpolation='nearest'),
    dict(type='PackSegInputs', meta_keys=('img_path', 'ori_shape', 'img_shape', 'patch_bbox', 'crop_number')),
]


@pytest.fixture
def cfg(folder, tmp_path):
    """Seven images of odd size, five crops of each."""

    def make(ratio: float = 0.5, **options) -> Config:
        images = dict(
            type='FolderSegDataset',
            data_root=str(folder(count=7, size=(41, 63), labels=options.get('labels') != 'none')),
            split='train',
            num_classes=4,
            pipeline=PIPELINE,
            **options,
        )
        dataset = dict(type='FiveCrop', ratio=ratio, stored=str(tmp_path / 'crops'), dataset=images)
        return Config(dict(default_scope='mmseg', train_dataloader=dict(dataset=dataset)))

    return make


def build(cfg: Config, **options) -> FiveCrop:
    return DATASETS.build(dict(cfg.train_dataloader.dataset) | options)


@pytest.mark.parametrize('ratio', [0.5, 0.7])
def test_files_are_those_of_torchvision_and_pillow(cfg, tmp_path, ratio):
    transforms = pytest.importorskip('torchvision.transforms.functional')
    config = cfg(ratio)
    out, written = prepare_five_crop(config, progress=False)
    assert (out, written) == (tmp_path / 'crops', 7)
    source = Path(config.train_dataloader.dataset.dataset.data_root)
    for image in (0, 3):
        with Image.open(source / f'images/train/{image:03d}.png') as opened:
            picture = transforms.to_tensor(opened.convert('RGB'))
        with Image.open(source / f'labels/train/{image:03d}.png') as opened:
            label = torch.from_numpy(np.array(opened))
        size = int(41 * ratio), int(63 * ratio)
        pictures = transforms.five_crop(picture, size)
        labels = transforms.five_crop(label[None], size)
        for crop in range(5):
            pixels = pictures[crop].mul(255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / 'expected.jpg', 'JPEG')
            stored = out / 'img/train' / f'{5 * image + crop}.jpg'
            assert stored.read_bytes() == (tmp_path / 'expected.jpg').read_bytes()
            with Image.open(out / 'label/train' / f'{5 * image + crop}.png') as opened:
                assert opened.mode == 'L'
                values = np.array(opened)
            expected = labels[crop][0].numpy()
            np.testing.assert_array_equal(values, np.where(expected == 255, 0, expected + 1))
    assert len(list((out / 'img/train').iterdir())) == len(list((out / 'label/train').iterdir())) == 35


def test_one_key_switches_and_the_images_may_be_gone(cfg):
    config = cfg()
    prepare_five_crop(config, progress=False)
    fly = build(config, stored=None)
    expected = [fly[item] for item in range(35)]
    fingerprint = dataset_fingerprint(fly)
    shutil.rmtree(config.train_dataloader.dataset.dataset.data_root)
    stored = build(config)
    assert len(stored) == 35
    assert stored.metainfo['classes'] == fly.metainfo['classes']
    for item in (0, 7, 34, -1):
        ours, theirs = stored[item], expected[item]
        assert ours['inputs'].shape == theirs['inputs'].shape
        torch.testing.assert_close(ours['data_samples'].gt_sem_seg.data, theirs['data_samples'].gt_sem_seg.data)
        assert ours['data_samples'].crop_number == item % 5
        assert ours['data_samples'].ori_shape == (20, 31)
        assert ours['data_samples'].img_path.endswith(f'crops/img/train/{item % 35}.jpg')
        # The same picture, compressed: noise survives JPEG badly, so that only its mean is asked for.
        assert not torch.equal(ours['inputs'], theirs['inputs'])
        difference = ours['inputs'].float().mean((1, 2)) - theirs['inputs'].float().mean((1, 2))
        assert difference.abs().max() < 12
    assert 255 in expected[0]['data_samples'].gt_sem_seg.data
    other = dataset_fingerprint(stored)
    assert other['items'] == fingerprint['items']
    assert other['images'] != fingerprint['images']
    assert other['pipeline'][0].startswith('FiveCrop(ratio=0.5, stored crops of ')
    assert fingerprint['pipeline'][0] == 'FiveCrop(ratio=0.5)'


def test_fingerprint_follows_what_the_crops_were_made_from(cfg, tmp_path):
    config = cfg()
    prepare_five_crop(config, progress=False)
    first = dataset_fingerprint(build(config))
    (tmp_path / 'crops').rename(tmp_path / 'moved')
    assert dataset_fingerprint(build(config, stored=str(tmp_path / 'moved'))) == first
    prepare_five_crop(config, quality=60, progress=False)
    assert dataset_fingerprint(build(config)) != first


def test_folders_of_other_scripts(cfg, tmp_path):
    config = cfg()
    prepare_five_crop(config, out=tmp_path / 'photos_five_crop_0.5', split='val', progress=False)
    folder = tmp_path / 'photos_five_crop_0.5'
    (folder / 'val.json').unlink()
    data = build(config, stored=str(folder), stored_split='val')
    assert len(data) == 35
    assert repr(data) == 'FiveCrop(ratio=0.5, stored crops of unknown)'
    assert data[3]['data_samples'].gt_sem_seg.data.max() <= 255
    with pytest.raises(ValueError, match=r'by the name of the folder, the ratio 0.5, the config asks for ratio=0.7'):
        build(config, stored=str(folder), stored_split='val', ratio=0.7)
    with pytest.raises(FileExistsError, match=r'not made by this command: .*val.json is absent'):
        prepare_five_crop(config, out=folder, split='val', progress=False)
    chosen = dict(config.train_dataloader.dataset.dataset) | dict(num_classes=2)
    with pytest.raises(ValueError, match=r'0.png: the label holds the value.* 3'):
        build(config, stored=str(folder), stored_split='val', dataset=chosen)[0]
    (folder / 'img/val/34.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'img/val: 1 of 35 files are missing: 34.jpg. Make it with\s+python'):
        build(config, stored=str(folder), stored_split='val')


def test_without_labels(cfg, tmp_path):
    config = cfg(labels='none')
    prepare_five_crop(config, progress=False)
    assert not (tmp_path / 'crops/label').exists()
    assert 'gt_sem_seg' not in build(config)[0]['data_samples']


def test_stored_labels_are_left_alone_without_labels(cfg):
    config = cfg()
    prepare_five_crop(config, progress=False)
    config.train_dataloader.dataset.dataset.labels = 'none'
    assert 'gt_sem_seg' not in build(config)[0]['data_samples']


def test_interrupted_preparation_is_continued(cfg, tmp_path, monkeypatch):
    config = cfg()
    calls = 0
    original = module.replaced_when_complete

    def interrupted(path):
        nonlocal calls
        calls += 1
        if calls == 25:
            raise KeyboardInterrupt
        return original(path)

    monkeypatch.setattr(module, 'replaced_when_complete', interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_five_crop(config, progress=False)
    with pytest.raises(ValueError, match=r'are not complete: .*Continue it with\s+python \S*/prepare.py five-crop'):
        build(config)
    assert '12 are there, 23 are to be made' in describe_five_crop(config)
    kept = tmp_path / 'crops/img/train/4.jpg'
    before = kept.stat().st_mtime_ns
    leftover = tmp_path / 'crops/img/train/.20.jpg.abc.part'
    leftover.write_bytes(b'half')
    monkeypatch.setattr(module, 'LEFTOVER_SECONDS', -1)
    calls = 25
    assert prepare_five_crop(config, progress=False)[1] == 5
    assert kept.stat().st_mtime_ns == before
    assert not leftover.exists()
    assert len(build(config)) == 35
    assert prepare_five_crop(config, progress=False)[1] == 0
    shutil.move(tmp_path / 'crops', tmp_path / 'continued')
    prepare_five_crop(config, progress=False)
    for path in (tmp_path / 'crops').rglob('*.*g'):
        assert path.read_bytes() == (tmp_path / 'continued' / path.relative_to(tmp_path / 'crops')).read_bytes()


def test_workers_write_the_same(cfg, tmp_path):
    config = cfg()
    prepare_five_crop(config, progress=False)
    prepare_five_crop(config, out=tmp_path / 'parallel', workers=2, progress=False)
    for path in (tmp_path / 'crops').rglob('*.*'):
        assert path.read_bytes() == (tmp_path / 'parallel' / path.relative_to(tmp_path / 'crops')).read_bytes()


@pytest.mark.parametrize('workers', [0, 1])
def test_damaged_image_is_named(cfg, workers):
    config = cfg()
    path = Path(config.train_dataloader.dataset.dataset.data_root, 'images/train/005.png')
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(OSError, match=r'^\S*005.png: the image cannot be read'):
        prepare_five_crop(config, workers=workers, progress=False)


def test_images_outside_the_list_are_not_touched(cfg, tmp_path):
    config = cfg()
    root = Path(config.train_dataloader.dataset.dataset.data_root)
    (root / 'list.txt').write_text('001\n004\n')
    (root / 'images/train/002.png').write_bytes(b'')
    config.train_dataloader.dataset.dataset.ann_file = 'list.txt'
    assert prepare_five_crop(config, progress=False)[1] == 2
    assert len(build(config)) == 10


def test_wrong_folders_and_settings(cfg, tmp_path, monkeypatch):
    config = cfg()
    with pytest.raises(FileNotFoundError, match=r'above img/train and label/train. Make it with\s+python'):
        build(config)
    prepare_five_crop(config, progress=False)
    with pytest.raises(ValueError, match='have the ratio 0.5, the config asks for ratio=0.7'):
        build(config, ratio=0.7)
    with pytest.raises(FileExistsError, match='(?s)holds other crops:\n  quality: 75 there, 50 here\nChoose another'):
        prepare_five_crop(config, quality=50, progress=False)
    other = dict(config.train_dataloader.dataset.dataset) | dict(num_classes=5)
    with pytest.raises(ValueError, match=r'were written for 4 classes .* the config has 5'):
        build(config, dataset=other)
    fewer = dict(config.train_dataloader.dataset.dataset) | dict(indices=2)
    with pytest.raises(ValueError, match='remove `indices` of the wrapped data set'):
        build(config, dataset=fewer)
    (tmp_path / 'crops/label/train/8.png').unlink()
    with pytest.raises(FileNotFoundError, match='label/train: 1 of 35 files are missing: 8.png'):
        build(config)
    (tmp_path / 'crops/train.json').write_text('{"images": 3}')
    with pytest.raises(ValueError, match='train.json does not describe a folder of crops'):
        build(config)
    with pytest.raises(ValueError, match='quality must lie in 1..95, got 96'):
        prepare_five_crop(config, quality=96)
    with pytest.raises(ValueError, match='train_dataloader has no data set of type FiveCrop'):
        prepare_five_crop(Config(dict(train_dataloader=dict(dataset=other))))
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda _: type('Disk', (), dict(free=1000)))
    with pytest.raises(OSError, match='only 0.00 GiB are free; make room or choose another folder with --out'):
        prepare_five_crop(config, out=tmp_path / 'new', progress=False)


def test_manifest_says_where_folders_differ():
    first = CropManifest('a', 5, 0.5, 75, True, ['x'])
    assert first.differences(CropManifest('b', 5, 0.7, 75, True, ['x'], True)) == [
        'images: a there, b here', 'ratio: 0.5 there, 0.7 here'
    ]  # fmt: skip


def test_tool(cfg, tmp_path, monkeypatch, capsys):
    config = cfg()
    config.dump(tmp_path / 'config.py')
    infos = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'info', infos.append)
    arguments = [str(TOOL), 'five-crop', str(tmp_path / 'config.py'), '--out', str(tmp_path / 'made'), '--workers', '0']
    monkeypatch.setattr(sys, 'argv', [*arguments, '--dry-run'])
    runpy.run_path(str(TOOL), run_name='__main__')
    printed = capsys.readouterr().out
    assert f'7 images -> 35 crops (images and labels) of ratio 0.5 in {tmp_path / "made"}' in printed
    assert '0 are there, 35 are to be made' in printed
    assert not (tmp_path / 'made').exists()
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(TOOL), run_name='__main__')
    assert f'five crops written for 7 images to {tmp_path / "made"}' in capsys.readouterr().out
    runpy.run_path(str(TOOL), run_name='__main__')
    assert 'five crops are up to date' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [*arguments, '--quality', '50'])
    with pytest.raises(SystemExit, match='prepare.py: .* holds other crops'):
        runpy.run_path(str(TOOL), run_name='__main__')


def test_folder_of_another_script_with_chosen_classes(tmp_path):
    for kind, mode, suffix in (('img', 'RGB', '.jpg'), ('label', 'L', '.png')):
        (tmp_path / kind / 'train').mkdir(parents=True)
        for crop in range(5):
            Image.new(mode, (24, 20), crop).save(tmp_path / kind / 'train' / f'{crop}{suffix}')
    coco = dict(type='COCOStuff27', data_root='/nowhere', ann_file='absent.txt', pipeline=PIPELINE)
    data = DATASETS.build(dict(type='FiveCrop', stored=str(tmp_path), dataset=coco))
    assert [data[crop]['data_samples'].gt_sem_seg.data.unique().tolist() for crop in range(5)] == [
        [255], [0], [1], [2], [3]
    ]  # fmt: skip
    chosen = coco | dict(metainfo=dict(classes=['sky', 'water']))
    with pytest.raises(ValueError, match='hold the classes of the whole data set, but the config chooses 2 of them'):
        DATASETS.build(dict(type='FiveCrop', stored=str(tmp_path), dataset=chosen))
