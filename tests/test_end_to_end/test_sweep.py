"""Sweeps in processes: killed in the middle and continued; a failing run; every schedule of the study, scaled down."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
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
from omh_mmseg.study.process import locked

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / 'configs'
SWEEP = 'analysis_tools/sweep.py'
SCHEDULES = sorted(path.stem for path in (CONFIGS / 'study').glob('*.py'))
PARTS = {
    'hosts': ['STEGO*', 'SmooSeg*'],
    'gradients': ['STEGO*', 'SmooSeg*'],
    'ablations': ['host', 'control', 'OMH', 'literal, .3*', 'both directions', 'centres by gradient*'],
    'weights': ['host', 'control', '* 0.03', '* 0.3'],
    'temperature': ['host', 'control', 'tau 0.03', 'tau 0.4'],
    'lambda': ['host', 'control', '* 0.005', '* 0.2'],
    'expansion': ['host', 'control', 'rho 1.0', 'rho 3.0'],
    'levels': ['host', 'control', 'N 1', 'N 5'],
    'seeds': ['host', 'control', 'OMH'],
}
CASES = [*((name, only, {}) for name, only in PARTS.items()), ('hosts', ['HP*'], {'model.pool_size': 4})]
"""HP's reference pool has room for no more images than there are."""

pytestmark = pytest.mark.slow


def rows(folder: Path) -> list[dict]:
    with open(folder / 'runs.csv', newline='') as file:
        return list(csv.DictReader(file))


def wait_for(path: Path, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not path.is_file():
        assert time.monotonic() < end, f'{path} did not appear'
        time.sleep(0.02)


def test_killed_in_the_middle_and_continued(demo, command, start, run, tmp_path):
    """Whatever kills the sweep ends its runs, leaves complete files, and costs the run under way its last steps."""
    work = tmp_path / 'work'
    options = {**demo.options, 'train_cfg.max_iters': 14, 'train_cfg.val_interval': 14}
    omh = 'model.omh_head'
    names = {'first': '', 'second': f'{omh}.plan.entropy_weight=0.1', 'wrong': f'{omh}.match.direction=up'}
    runs = [f'{name}: {demo.config} {words}'.strip() for name, words in names.items()]
    # A developer may edit the source meanwhile.
    words = command(SWEEP, '--any-source', '--work-dir', work, '--seeds', 0, '--reference', 'first', '--runs', *runs,
                    options=options)  # fmt: skip
    process = start(tmp_path, words)
    wait_for(work / 'second' / 'seed0' / 'last_checkpoint')
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with locked(work / 'second' / 'seed0'):  # the run is gone, too
        pass
    assert [(row['name'], row['status']) for row in rows(work)] == [('first', 'finished')]
    assert '| first | 1 ' in ' '.join((work / 'table.md').read_text().split())
    assert not (work / 'second' / 'seed0' / 'result.json').exists()
    stored = (work / 'first' / 'seed0' / 'result.json').read_bytes()

    printed = run(tmp_path, words, status=1)
    assert "ValueError: direction must be one of ('fine_to_coarse', 'coarse_to_fine', 'both'); got 'up'." in printed
    assert (work / 'first' / 'seed0' / 'result.json').read_bytes() == stored
    assert 'resumed epoch: 0, iter: ' in (work / 'second' / 'seed0' / 'console.log').read_text()
    first, second, wrong = rows(work)
    assert (first['status'], second['status'], wrong['status']) == ('finished', 'finished', 'failed')
    for row in (first, second):
        assert 0 <= float(row['level1/mIoU']) <= 100 and float(row['ms_per_step']) > 0
        assert json.loads(row['overrides'])['train_cfg.max_iters'] == 14
    assert float(second['train/omh_sparsity_12']) > float(first['train/omh_sparsity_12'])
    assert 'Traceback' in (work / 'wrong' / 'seed0' / 'console.log').read_text()


# ---- the schedules of the study


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with six training and two validation images of 40 x 56, and a random MobileNetV2."""
    folder = tmp_path_factory.mktemp('study')
    draw = np.random.default_rng(0)
    for split, count in (('train', 6), ('val', 2)):
        for kind in ('images', 'labels'):
            (folder / 'data' / kind / split).mkdir(parents=True)
        for index in range(count):
            picture = Image.fromarray(draw.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((56, 40))
            picture.save(folder / 'data' / 'images' / split / f'{index}.jpg')
            label = Image.fromarray(draw.integers(0, 4, (5, 7), dtype=np.uint8)).resize((56, 40), Image.NEAREST)
            label.save(folder / 'data' / 'labels' / split / f'{index}.png')
    init_default_scope('mmseg')
    torch.manual_seed(0)
    backbone = Config.fromfile(str(CONFIGS / 'stego_mobilenet-v2_folder.py')).model.backbone.backbone
    torch.save(MODELS.build(backbone).state_dict(), folder / 'net.pth')
    DefaultScope._instance_dict.clear()
    yield folder


def test_there_is_a_part_of_every_schedule():
    assert sorted(PARTS) == SCHEDULES


@pytest.mark.parametrize(('name', 'only', 'more'), CASES, ids=[*PARTS, 'hosts of HP'])
def test_schedule_of_the_study(name, only, more, photos, command, run):
    """One step each; all schedules share their runs."""
    options = {
        'data_root': photos / 'data', 'num_classes': 4, 'model.backbone.checkpoint': photos / 'net.pth',
        'train_dataloader.batch_size': 2, 'train_cfg.max_iters': 1, 'train_cfg.val_interval': 1,
        'model.omh_head.reach.begin': 0, 'default_hooks.checkpoint.interval': 1,
        **more,
    }  # fmt: skip
    for loader in ('train', 'val', 'test'):
        options |= {f'{loader}_dataloader.num_workers': 0, f'{loader}_dataloader.persistent_workers': False}
    work = photos / '_'.join([name, *more])
    words = ['--work-dir', work, '--runs-dir', photos / 'runs', '--seeds', 0, '--set', 'data=mobilenet-v2_folder',
             'images=noise', '--only', *only]  # fmt: skip
    printed = run(photos, command(SWEEP, CONFIGS / 'study' / f'{name}.py', *words, options=options))
    found = rows(work)
    assert len(found) >= 2 and {row['status'] for row in found} == {'finished'}
    schedule = Config.fromfile(str(CONFIGS / 'study' / f'{name}.py'))
    assert 'noise' in printed
    if name == 'gradients':  # compares no runs
        assert all(row[column] for row in found for column in schedule.columns)
    else:
        assert 'Difference to ' in printed
    for figure in schedule.get('figures', []):
        assert Image.open(work / figure['file']).size[0] > 300
