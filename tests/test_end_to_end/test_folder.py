"""The folder config on pictures of one's own, with and without labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

import omh_mmseg  # noqa: F401
from omh_mmseg.registry import MODELS

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'omh_stego_mobilenet-v2_folder.py'
QUICK = {
    'model.omh_head.reach.begin': 0,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
    'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 2,
    'default_hooks.logger.interval': 1,
}

pytestmark = pytest.mark.slow


@pytest.fixture
def weights(tmp_path) -> Iterator[Path]:
    """A random MobileNetV2."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    torch.save(MODELS.build(Config.fromfile(str(CONFIG)).model.backbone.backbone).state_dict(), tmp_path / 'net.pth')
    yield tmp_path / 'net.pth'
    DefaultScope._instance_dict.clear()


@pytest.fixture
def photos(tmp_path) -> Path:
    """Eight pictures in one flat folder, nothing else."""
    generator = np.random.default_rng(0)
    (tmp_path / 'photos').mkdir()
    for number in range(8):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((160, 120)).save(tmp_path / 'photos' / f'{number}.jpg')
    return tmp_path / 'photos'


def test_without_labels(photos, weights, command, run, tmp_path):
    options = QUICK | {
        'data_root': photos, 'num_classes': 5, 'model.backbone.checkpoint': weights, 'train_dataloader.batch_size': 4
    }  # fmt: skip
    run(tmp_path, command('prepare.py', 'neighbours', CONFIG, options=options))
    log = run(tmp_path, command('train.py', CONFIG, options=options))
    work_dir = tmp_path / 'work_dirs' / CONFIG.stem
    (figures,) = work_dir.glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in figures.read_text().splitlines()]
    assert [step['iter'] for step in steps if 'loss' in step] == [1, 2]
    assert all(step['loss_linear_probe'] == 0 for step in steps if 'loss' in step)
    assert 'label' in log.lower() and 'Traceback' not in log
    (measured,) = (step for step in steps if 'label_free/probe/margin' in step)
    assert {'label_free/level1/effective', 'label_free/level2/crop', 'label_free/probe/mirror'} <= set(measured)
    log = run(tmp_path, command('test.py', CONFIG, work_dir / 'iter_2.pth', '--out', 'maps', options=options))
    maps = [np.array(Image.open(path)) for path in (tmp_path / 'maps').glob('*.png')]
    assert maps and all(one.shape == (120, 160) and one.max() < 5 for one in maps)
    # Nothing is said in classes by a linear probe that never saw one.
    words = [work_dir / CONFIG.name, work_dir / 'iter_2.pth', photos]
    log = run(tmp_path, command('predict.py', *words, tmp_path / 'absent'), status=1)
    assert f'predict.py: there is no folder {tmp_path / "absent"} (looked from' in log and str(photos) not in log
    run(tmp_path, command('predict.py', *words, '--grid', 'grid.png'))
    assert not list((tmp_path / 'predictions').glob('*/linear'))
    assert len(list((tmp_path / 'predictions' / 'clusters' / 'probe').glob('*.png'))) == 8


def test_run_that_ends_before_omh_begins(photos, weights, command, run, tmp_path):
    options = QUICK | {
        'data_root': photos, 'num_classes': 5, 'model.backbone.checkpoint': weights, 'train_dataloader.batch_size': 4,
        'model.omh_head.reach.begin': 200,
    }  # fmt: skip
    run(tmp_path, command('prepare.py', 'neighbours', CONFIG, options=options))
    log = run(tmp_path, command('train.py', CONFIG, options=options))
    assert log.count('OMH begins at step 200 and the run has 2 steps') == 1
    log = run(tmp_path, command('train.py', CONFIG, options=options | {'model.omh_head.reach.begin': 0.4}))
    assert 'OMH begins at step' not in log and 'nobody has told OMH' not in log


@pytest.fixture
def coloured(photos) -> Path:
    """The pictures with masks of two colours in RGB, under ``<stem>_mask.PNG``, and lists of the two splits."""
    (photos / 'images').mkdir()
    (photos / 'labels').mkdir()
    for number in range(8):
        (photos / f'{number}.jpg').rename(photos / 'images' / f'{number}.jpg')
        mask = np.zeros((120, 160, 3), np.uint8)
        mask[:, 10 * number :] = (0, 128, 0)
        Image.fromarray(mask).save(photos / 'labels' / f'{number}_mask.PNG')
    (photos / 'train.txt').write_bytes('0.jpg\r\nimages\\1.jpg\r\n2\r\n3 \r\n'.encode('utf-16'))
    (photos / 'val.txt').write_bytes(b'\xef\xbb\xbf6\n7\n')
    return photos


def test_labels_in_colours_and_lists(coloured, weights, command, run, tmp_path):
    options = QUICK | {
        'data_root': coloured, 'num_classes': 2, 'model.backbone.checkpoint': weights, 'train_dataloader.batch_size': 4,
        'train_list': 'train.txt', 'val_list': 'val.txt', 'seg_map_suffix': '_mask.png',
        'label_colours': '[[0,0,0],[0,128,0]]',
    }  # fmt: skip
    run(tmp_path, command('prepare.py', 'neighbours', CONFIG, options=options))
    log = run(tmp_path, command('train.py', CONFIG, options=options))
    assert 'Traceback' not in log
    work_dir = tmp_path / 'work_dirs' / CONFIG.stem
    (figures,) = work_dir.glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in figures.read_text().splitlines()]
    assert all(step['loss_linear_probe'] > 0 for step in steps if 'loss' in step)
    assert steps[-1]['probe/mIoU'] > 0
    log = run(tmp_path, command('test.py', CONFIG, work_dir / 'iter_2.pth', options=options))
    assert 'probe' in log

    # Each command refuses what it cannot read in one line, a worker process of a loader as well.
    refused = options | {'label_colours': '[[0,0,0],[9,9,9]]'}
    commands = [
        ('prepare.py', 'neighbours', CONFIG, '--force'),
        ('train.py', CONFIG),
        ('test.py', CONFIG, work_dir / 'iter_2.pth'),
        ('analysis_tools/kmeans_baseline.py', CONFIG), ('analysis_tools/feature_cosines.py', CONFIG),
        ('analysis_tools/fit_assignment.py', CONFIG, work_dir / 'iter_2.pth'),
        ('analysis_tools/compare_protocols.py', CONFIG, work_dir / 'iter_2.pth'),
        ('analysis_tools/hierarchy.py', 'scores', CONFIG, work_dir / 'iter_2.pth', '--out', 'scores'),
    ]  # fmt: skip
    for words in commands:
        log = run(tmp_path, command(*words, options=refused), status=1)
        assert 'Traceback' not in log, (words, log)
        last = log.strip().splitlines()[-1]
        assert last.startswith(Path(str(words[0])).name) and '_mask.PNG' in last and '#008000' in last, (words, last)


def test_photos_and_weights_of_the_shared_folder(shared_dir, command, run, tmp_path):
    data, net = shared_dir / 'data' / 'camvid', shared_dir / 'weights' / 'mobilenet_v2_imagenet_mmpretrain.pth'
    if not (data.is_dir() and net.is_file()):
        pytest.skip(f'{data} and {net} are needed')
    options = QUICK | {'data_root': data, 'model.backbone.checkpoint': net}
    run(tmp_path, command('prepare.py', 'neighbours', CONFIG, options=options))
    run(tmp_path, command('train.py', CONFIG, options=options))
    (figures,) = (tmp_path / 'work_dirs' / CONFIG.stem).glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in figures.read_text().splitlines()]
    assert steps[-1]['probe/mIoU'] > 0 and steps[-1]['level1/mIoU'] > 0
