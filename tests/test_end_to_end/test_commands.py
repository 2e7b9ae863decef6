"""This project's own commands: prepare, train, resume, test; and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omh_mmseg.transport import Hierarchy


def checkpoint(path: Path) -> dict:
    return torch.load(path, weights_only=False)


def test_preparation_says_where_the_index_is(trained):
    assert f'neighbour index written to {trained.folder / "index.npz"}' in trained.preparation
    with np.load(trained.folder / 'index.npz') as index:
        assert index['neighbours'].shape == (12, 12)
    assert [path.name for path in trained.folder.glob('.*')] == ['.scenes.lock']


def test_training_validates_and_writes_checkpoints(trained):
    assert {path.name for path in trained.work_dir.glob('*.pth')} == {'iter_2.pth', 'iter_4.pth'}
    assert (trained.work_dir / 'last_checkpoint').read_text().endswith('iter_4.pth')
    scores = [line for line in trained.figures if 'probe/mIoU' in line]
    assert len(scores) == 1
    for head in ('probe', 'linear', 'level1'):
        for figure in ('mIoU', 'aAcc'):
            assert 0 <= scores[0][f'{head}/{figure}'] <= 100
    assert 'random weights' not in trained.log


def test_training_logs_what_must_be_observable(trained):
    steps = [line for line in trained.figures if 'loss' in line]
    assert len(steps) == 4
    figures = {f'omh_{name}_{pair}' for name in ('sparsity', 'violation', 'iterations') for pair in (12, 23)}
    figures |= {f'omh_used_{level}' for level in (1, 2, 3)}
    losses = {f'loss_{name}' for name in ('self', 'knn', 'rand', 'cluster_probe', 'linear_probe')}
    assert all(losses | figures <= set(step) for step in steps)
    # The demo's centres follow their positions: there is nothing that they minimise.
    assert not any('loss_omh_centre' in step for step in steps)
    assert ['loss_omh_match' in step for step in steps] == [False, False, True, True]
    assert 'code_gradient_omh_match' in steps[2]


def test_training_leaves_the_backbone_as_it_was(trained):
    original = torch.load(trained.folder / 'vit.pth', weights_only=True)
    state = checkpoint(trained.work_dir / 'iter_4.pth')['state_dict']
    for key, value in original.items():
        assert torch.equal(state[f'backbone.backbone.{key}'], value), key


def test_training_writes_the_hierarchy(trained):
    hierarchy = Hierarchy.from_json(trained.work_dir / 'hierarchy.json')
    assert hierarchy.level_sizes == [6, 12, 24]
    for name in ('plans.png', 'hierarchy.png'):
        with Image.open(trained.work_dir / name) as picture:
            assert min(picture.size) > 100


@pytest.mark.slow
def test_resume_continues(trained, command, run, tmp_path):
    work_dir = tmp_path / 'run'
    shutil.copytree(trained.work_dir, work_dir)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'iter_4.pth'))
    options = trained.options | {'train_cfg.max_iters': 6, 'train_cfg.val_interval': 100}
    log = run(trained.folder, command('train.py', trained.config, '--work-dir', work_dir, '--resume', options=options))
    assert 'resumed epoch: 0, iter: 4' in log
    newest = max(work_dir.glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for line in newest.read_text().splitlines()]
    assert [line['iter'] for line in lines if 'loss' in line] == [5, 6]
    before, after = (checkpoint(work_dir / f'iter_{number}.pth') for number in (4, 6))
    for name in ('iteration',):
        assert [int(saved['state_dict'][name]) for saved in (before, after)] == [4, 6]
    assert after['message_hub']['runtime_info']['iter'] + 1 == 6
    potentials = [saved['state_dict']['omh_head.plan.row_potential_0'] for saved in (before, after)]
    assert all(potential.any() for potential in potentials) and not torch.equal(*potentials)
    moments = after['optimizer']['state']
    assert {int(value['step']) for value in moments.values()} == {6}


def test_testing_writes_scores_label_maps_and_pictures(trained, command, run, tmp_path):
    log = run(
        trained.folder,
        command(
            'test.py', trained.config, trained.work_dir / 'iter_4.pth', '--work-dir', tmp_path, '--out',
            tmp_path / 'maps', '--show-dir', tmp_path / 'pictures', options=trained.options,
        ),
    )  # fmt: skip
    assert 'probe/mIoU' in log and 'level1/aAcc' in log
    (scores,) = tmp_path.glob('*/*.json')
    tested = json.loads(scores.read_text())
    (validated,) = (line for line in trained.figures if 'probe/mIoU' in line)
    for name in ('probe/mIoU', 'linear/aAcc', 'level1/mIoU'):
        assert tested[name] == pytest.approx(validated[name], abs=0.01)
    maps = {path.name: np.array(Image.open(path)) for path in (tmp_path / 'maps').glob('*.png')}
    assert sorted(maps) == [f'{number:05d}.png' for number in range(4)]
    assert all(one.shape == (128, 128) and one.max() < 6 for one in maps.values())
    assert len(list((tmp_path / 'pictures' / 'vis_data' / 'vis_image').glob('test_*.png'))) == 4


@pytest.mark.slow
def test_missing_index_names_the_command_that_makes_it(demo, command, run, tmp_path):
    options = demo.options | {
        'train_dataloader.dataset.index': tmp_path / 'absent.npz', 'default_hooks.neighbour_index.build': False
    }  # fmt: skip
    log = run(tmp_path, command('train.py', demo.config, '--work-dir', tmp_path / 'run', options=options), status=1)
    lines = [line.strip() for line in log.splitlines()]
    assert any(f'there is no neighbour index {tmp_path}/absent.npz. Make it with' in line for line in lines)
    (remedy,) = {line for line in lines if 'tools/prepare.py neighbours' in line}
    assert str(demo.config) in remedy and f'train_dataloader.dataset.index={tmp_path}/absent.npz' in remedy
    assert not list(tmp_path.rglob('*.pth'))


@pytest.mark.slow
def test_interrupted_preparation_is_continued(demo, command, start, run, tmp_path):
    from omh_mmseg.datasets import DemoScenes

    DemoScenes(data_root=str(tmp_path / 'scenes'), counts=dict(train=12, val=4), pipeline=[])
    options = demo.options | {
        'train_dataloader.dataset.index': tmp_path / 'index' / 'a.npz', 'train_dataloader.batch_size': 1,
        'train_dataloader.dataset.dataset.data_root': tmp_path / 'scenes',
    }  # fmt: skip
    # An image that never comes stops the command in the middle, on any machine.
    image, kept = tmp_path / 'scenes/images/train/00006.png', tmp_path / 'kept.png'
    image.rename(kept)
    os.mkfifo(image)
    process = start(tmp_path, command('prepare.py', 'neighbours', demo.config, options=options))
    try:
        until = time.monotonic() + 600
        while not list(tmp_path.glob('index/a.npz.partial/features.f32')):
            assert process.poll() is None and time.monotonic() < until, process.communicate(timeout=5)[0]
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)
        log, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 1, log
    assert 'interrupted; run the same command again to continue' in log
    assert [path.name for path in (tmp_path / 'index').iterdir()] == ['a.npz.partial']
    image.unlink()
    kept.rename(image)
    run(tmp_path, command('prepare.py', 'neighbours', demo.config, options=options))
    assert [path.name for path in (tmp_path / 'index').iterdir()] == ['a.npz']


@pytest.mark.slow
def test_checkpoint_of_another_model_is_seen(trained, command, run, tmp_path):
    """A host without OMH reads a checkpoint with it; the log names what was left over."""
    host = trained.config.with_name('stego_vit-t8_demo.py')
    options = {key: value for key, value in trained.options.items() if 'omh_head' not in key}
    log = run(tmp_path, command('test.py', host, trained.work_dir / 'iter_4.pth', options=options))
    assert log.count("omh_head of it are not used, as the config's model has none") == 1
    assert 'level1/mIoU' not in log and 'probe/mIoU' in log


@pytest.mark.slow
def test_interrupted_training_names_its_checkpoint(trained, command, start, tmp_path):
    options = trained.options | {'train_cfg.max_iters': 1000, 'train_dataloader.num_workers': 2}
    process = start(tmp_path, command('train.py', trained.config, '--work-dir', 'run', options=options))
    try:
        until = time.monotonic() + 600
        while not (tmp_path / 'run' / 'last_checkpoint').is_file():
            assert process.poll() is None and time.monotonic() < until, process.communicate(timeout=5)[0]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        log, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, log
    saved = (tmp_path / 'run' / 'last_checkpoint').read_text()
    assert f'interrupted: the last checkpoint is {saved}; run the same command with --resume' in log.replace('\n', ' ')
    assert checkpoint(Path(saved) if Path(saved).is_absolute() else tmp_path / saved)['state_dict']
