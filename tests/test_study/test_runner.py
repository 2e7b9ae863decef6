"""What a sweep carries out, keeps and tries again; and one real run of it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

import omh_mmseg  # noqa: F401
from omh_mmseg.study import runner as module
from omh_mmseg.study.job import SweepJob, make_neighbours, train_and_score
from omh_mmseg.study.process import NOTE, RESULT, forget_other_settings, locked
from omh_mmseg.study.runner import Resources, run_sweep
from omh_mmseg.study.schedule import Schedule, SweepRun
from omh_mmseg.study.source_state import PACKAGE, source_commit, source_key
from omh_mmseg.utils.files import write_text
from omh_mmseg.utils.settings import Text

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STEGO, TWIN, SMOOSEG = (str(CONFIGS / f'{name}_vit-t8_demo.py') for name in ('stego', 'omh_stego', 'smooseg'))
TAU = 'model.omh_head.temperature'


@pytest.fixture(autouse=True)
def scope(monkeypatch) -> Iterator[None]:
    init_default_scope('mmseg')
    for name in ('OMH_DATA_ROOT', 'OMH_NUM_CLASSES'):
        monkeypatch.delenv(name, raising=False)
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Runs are made up in this process; the list tells which, with the device. Names with 'fails' fail."""
    found: list[str] = []

    def start(run, device):
        forget_other_settings(run.folder, run.key)
        result = dict(run.identity)
        if run.work is make_neighbours:
            found.append('index')
            (run.folder / 'index.npz').touch()
            result |= dict(path=str(run.folder / 'index.npz'))
            if 'no index' in run.argument.run.name:
                result = dict(error='OSError: no room')
        else:
            name = run.argument.run.name
            found.append(f'{name} {run.argument.seed} {device}')
            result |= dict(error='ValueError: no') if 'fails' in name else dict(
                scores={'probe/mIoU': 10.0 + run.argument.seed}, figures={}, seconds=1.0, ms_per_step=2.0, memory=3.0,
                memory_of='process', source=1,
            )  # fmt: skip
        reader, writer = os.pipe()
        os.close(writer)

        def join() -> None:
            if 'dies' not in run.argument.run.name:
                write_text(run.folder / RESULT, json.dumps(dict(key=run.key, asked=run.asked, run=result)))
            os.close(reader)

        return SimpleNamespace(sentinel=reader, join=join, exitcode=9)

    @contextmanager
    def processes(self):
        yield start

    monkeypatch.setattr(module._Sweep, '_processes', processes)
    return found


def schedule(*names: str, config: str = SMOOSEG, seeds: tuple[int, ...] = (0, 1), **fields) -> Schedule:
    return Schedule(tuple(SweepRun(name, config) for name in names), seeds, **fields)


def sweep(asked: Schedule, folder: Path, **more) -> list[dict]:
    options, resources = more.pop('options', None), more.pop('resources', Resources())
    return run_sweep(asked, folder, options, resources, progress=False, **more)


def test_seeds_in_turn_over_the_devices(tmp_path, made, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    rows = sweep(schedule('a', 'b'), tmp_path, resources=Resources(('cuda:0', 'cuda:1'), 2))
    assert made == ['a 0 cuda:0', 'b 0 cuda:1', 'a 1 cuda:0', 'b 1 cuda:1']
    assert [(row['name'], row['seed'], row['status']) for row in rows] == [
        ('a', 0, 'finished'), ('a', 1, 'finished'), ('b', 0, 'finished'), ('b', 1, 'finished')
    ]  # fmt: skip
    assert rows[1]['scores'] == {'probe/mIoU': 11.0} and rows[0]['commit'] == source_commit()
    assert rows[0]['folder'] == str(tmp_path / 'a' / 'seed0')
    assert len(list(csv.DictReader((tmp_path / 'runs.csv').open()))) == 4


def test_finished_runs_are_kept_and_failed_ones_tried_again(tmp_path, made):
    rows = sweep(schedule('a', 'fails'), tmp_path)
    assert [row['status'] for row in rows] == ['finished', 'finished', 'failed', 'failed']
    assert rows[2]['error'] == 'ValueError: no'
    made.clear()
    assert sweep(schedule('a', 'fails', seeds=(0, 1, 2)), tmp_path)[:2] == rows[:2]
    assert made == ['fails 0 cpu', 'fails 1 cpu', 'a 2 cpu', 'fails 2 cpu']
    made.clear()
    sweep(schedule('a', seeds=(0,)), tmp_path, options={'train_cfg.max_iters': 7})
    sweep(schedule('a', seeds=(0,), protocols=('mmseg',)), tmp_path, options={'train_cfg.max_iters': 7})
    assert made == ['a 0 cpu'] * 2


def test_other_source_is_run_again_unless_it_may_be_any(tmp_path, made, monkeypatch):
    sweep(schedule('a', 'b', seeds=(0,)), tmp_path)
    (tmp_path / 'a' / 'seed0' / 'last_checkpoint').touch()
    made.clear()
    monkeypatch.setattr(module, 'source_key', lambda: 'other')
    sweep(schedule('a', 'b', seeds=(0,)), tmp_path, any_source=True)
    assert made == [] and (tmp_path / 'a' / 'seed0' / 'last_checkpoint').is_file()
    sweep(schedule('a', 'b', seeds=(0,)), tmp_path, any_source=True, options={'train_cfg.max_iters': 7})
    assert made == ['a 0 cpu', 'b 0 cpu']
    made.clear()
    monkeypatch.setattr(module, 'source_key', lambda: 'third')
    (tmp_path / 'a' / 'seed0' / 'last_checkpoint').touch()
    sweep(schedule('a', seeds=(0,)), tmp_path, options={'train_cfg.max_iters': 7})
    assert made == ['a 0 cpu'] and not (tmp_path / 'a' / 'seed0' / 'last_checkpoint').exists()


def test_a_part_of_the_schedule(tmp_path, made):
    sweep(schedule('a', 'tau 1', 'tau 2'), tmp_path, only=['tau *'], train=False)
    assert made == []
    rows = sweep(schedule('a', 'tau 1', 'tau 2', seeds=(0,)), tmp_path, only=['tau *'])
    assert made == ['tau 1 0 cpu', 'tau 2 0 cpu'] and [row['name'] for row in rows] == ['tau 1', 'tau 2']
    rows = sweep(schedule('a', 'tau 1', 'tau 2', seeds=(0,)), tmp_path, only=['a'])
    assert [row['name'] for row in rows] == ['a', 'tau 1', 'tau 2']
    with pytest.raises(ValueError, match=r"no run is named like \['b'\]; the schedule has a, tau 1"):
        sweep(schedule('a', 'tau 1'), tmp_path, only=['b'])


def test_sweeps_share_equal_runs(tmp_path, made):
    runs = tuple(SweepRun(name, TWIN, {TAU: tau}) for name, tau in (('default', 0.1), ('tau .1', 0.1), ('tau .2', 0.2)))
    rows = sweep(Schedule(runs, (0,)), tmp_path / 'one', runs_dir=tmp_path / 'runs')
    assert made == ['index', 'default 0 cpu', 'tau .2 0 cpu']
    assert [row['name'] for row in rows] == ['default', 'tau .1', 'tau .2']
    assert rows[0]['folder'] == rows[1]['folder'] != rows[2]['folder']
    made.clear()
    (row,) = sweep(Schedule((SweepRun('x', TWIN, {TAU: 0.2}, 'x', 0.2),), (0,)), tmp_path / 'two',
                   runs_dir=tmp_path / 'runs')  # fmt: skip
    assert made == [] and (row['name'], row['x'], row['folder']) == ('x', 0.2, rows[2]['folder'])


def test_what_is_asked_of_a_finished_run_later_does_not_train_it_anew(tmp_path, made):
    sweep(schedule('a', seeds=(0,)), tmp_path)
    (tmp_path / 'a' / 'seed0' / 'last_checkpoint').touch()
    sweep(schedule('a', seeds=(0,), protocols=('mmseg',)), tmp_path)
    assert len(made) == 2 and (tmp_path / 'a' / 'seed0' / 'last_checkpoint').is_file()
    sweep(schedule('a', seeds=(0,)), tmp_path)
    assert len(made) == 2
    shown = Schedule((SweepRun('a', SMOOSEG), SweepRun('b', '', of='a', refit=True)), (0,))
    rows = sweep(shown, tmp_path, only=['b'])
    assert len(made) == 3 and [(row['name'], row['status']) for row in rows] == [('a', 'finished'), ('b', 'finished')]


def test_equal_runs_do_not_go_on_at_a_time(tmp_path, made):
    runs = (SweepRun('one', SMOOSEG), SweepRun('fails', SMOOSEG), SweepRun('other', SMOOSEG, {'model.num_classes': 3}))
    sweep(Schedule(runs, (0,)), tmp_path, runs_dir=tmp_path / 'runs', resources=Resources(jobs=3))
    assert made == ['one 0 cpu', 'other 0 cpu']


def test_an_index_is_made_once_and_its_failure_is_a_row(tmp_path, made):
    runs = (SweepRun('host', STEGO), SweepRun('twin', TWIN), SweepRun('none', SMOOSEG),
            SweepRun('no index', STEGO, {'data_root': str(tmp_path)}))  # fmt: skip
    rows = sweep(Schedule(runs, (0,)), tmp_path / 'work')
    assert made == ['index', 'index', 'host 0 cpu', 'twin 0 cpu', 'none 0 cpu']
    assert rows[3]['error'] == 'neighbour index: OSError: no room'
    made.clear()
    sweep(Schedule(runs[:2], (0, 1)), tmp_path / 'work')
    assert made == ['host 1 cpu', 'twin 1 cpu']
    for path in (tmp_path / 'work').glob('.preparation/*/index.npz'):
        path.unlink()
    made.clear()
    sweep(Schedule(runs[:1], (2,)), tmp_path / 'work')
    assert made == ['index', 'host 2 cpu']


def test_a_run_that_dies_is_a_row(tmp_path, made):
    (dies,) = sweep(Schedule((SweepRun('dies', SMOOSEG),), (0,)), tmp_path)
    assert dies['error'].startswith('the process ended with status 9, by lack of memory perhaps; see ')
    assert made == ['dies 0 cpu']
    assert '| dies | 0 |' in ' '.join((tmp_path / 'table.md').read_text().split())


def test_nothing_starts_while_a_run_cannot_be_made(tmp_path, made):
    runs = (SweepRun('a', SMOOSEG), SweepRun('absent', 'no_such.py'), SweepRun('odd', SMOOSEG, {'model.type.x': 1}),
            SweepRun('typo', SMOOSEG, {'model.decode_head.chanels': 3}))  # fmt: skip
    with pytest.raises(ValueError, match='the config of 3 of the runs cannot be made, so none is started') as caught:
        sweep(Schedule(runs, (0, 1)), tmp_path)
    for part in ('absent: FileNotFoundError: there is no config file no_such.py', 'odd: ValueError: --cfg-options',
                 'typo: ValueError: .*did you mean model.decode_head.channels'):  # fmt: skip
        assert re.search(part, str(caught.value))
    assert made == []
    assert [row['name'] for row in sweep(Schedule(runs, (0,)), tmp_path, only=['a'])] == ['a', 'absent', 'odd', 'typo']
    assert len(sweep(Schedule(runs, (0,)), tmp_path, train=False)) == 4 and made == ['a 0 cpu']


def test_a_setting_that_reaches_nothing_stops_a_whole_sweep(tmp_path, made):
    with pytest.raises(ValueError, match='none is started:\n  a: ValueError: --cfg-options data_rot'):
        sweep(schedule('a'), tmp_path, options={'data_rot': Text('x')})
    assert made == []


def test_one_sweep_at_a_time(tmp_path, made):
    with locked(tmp_path / 'work'), pytest.raises(BlockingIOError, match='another process is at work in .*work'):
        sweep(schedule('a'), tmp_path / 'work')
    sweep(schedule('a', seeds=(0,)), tmp_path / 'work')
    assert made == ['a 0 cpu']


def test_a_table_is_there_after_every_run(tmp_path, made, monkeypatch):
    """A sweep that is cut off has told what it knew, in complete files."""
    monkeypatch.setattr(module._Sweep, '_record', cut_off(module._Sweep._record, 2))
    with pytest.raises(KeyboardInterrupt):
        sweep(schedule('a', 'b', 'c'), tmp_path)
    assert [row['name'] for row in csv.DictReader((tmp_path / 'runs.csv').open())] == ['a', 'b']
    assert '| b | 1 | 10.00 |' in ' '.join((tmp_path / 'table.md').read_text().split())


def cut_off(method, after: int):
    calls = []

    def record(self, *args, **kwargs):
        method(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt

    return record


def test_resources(monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 8)
    assert Resources(jobs=3).slots() == ['cpu'] * 3 and Resources(jobs=3).threads_each() == 2
    assert Resources(threads=5).threads_each() == 5
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    assert Resources(jobs=2).threads_each() == 3
    for wrong in (dict(jobs=0), dict(threads=0), dict(devices=())):
        with pytest.raises(ValueError, match='must be at least 1'):
            Resources(**wrong)
    with pytest.raises(ValueError, match="devices are 'cpu' or 'cuda:0'.*got 'gpu'"):
        Resources(('gpu',))
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    with pytest.raises(ValueError, match='no device cuda:1: torch sees 1 GPUs'):
        Resources(('cuda:0', 'cuda:1'))


def test_each_run_sees_its_own_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert module._visible('cuda:1') == dict(CUDA_VISIBLE_DEVICES='1')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
    assert module._visible('cuda:1') == dict(CUDA_VISIBLE_DEVICES='6')
    assert module._visible('cpu') == dict(CUDA_VISIBLE_DEVICES='')


def test_source_key_is_that_of_what_acts_on_scores(tmp_path, monkeypatch):
    from omh_mmseg.study import source_state

    for name in ('models/a.py', 'engine/hooks/b.py', 'engine/sweep.py', 'visualization/c.py'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('1')
    monkeypatch.setattr(source_state, 'PACKAGE', tmp_path)
    before = source_key()
    for name in ('engine/sweep.py', 'visualization/c.py'):
        (tmp_path / name).write_text('2')
    assert source_key() == before
    for name in ('models/a.py', 'engine/hooks/b.py'):
        (tmp_path / name).write_text('2')
        assert source_key() != before
        before = source_key()
    assert source_commit().startswith('version ') and PACKAGE.name == 'omh_mmseg'


# ---- a real run


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder data set of six training and two validation images."""
    draw = np.random.default_rng(0)
    for split, count in (('train', 6), ('val', 2)):
        for kind in ('images', 'labels'):
            (tmp_path / 'data' / kind / split).mkdir(parents=True)
        for index in range(count):
            picture = draw.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / 'data' / 'images' / split / f'{index}.jpg')
            label = draw.integers(0, 4, (32, 48), dtype=np.uint8)
            Image.fromarray(label).save(tmp_path / 'data' / 'labels' / split / f'{index}.png')
    return tmp_path / 'data'


def tiny_job(folder: Path, work: Path, **more) -> SweepJob:
    """Two steps of STEGO + OMH on the small transformer, at 32 pixels."""
    options = {f'{loader}_dataloader.{key}': value for loader in ('train', 'val', 'test')
               for key, value in (('num_workers', 0), ('persistent_workers', False))}  # fmt: skip
    options |= {
        'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.index': str(work / 'index.npz'), 'data_root': str(folder), 'num_classes': 4,
        'model.omh_head.reach.begin': 0,
    }  # fmt: skip
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadOptionalAnnotations'), dict(type='PackSegInputs')]
    for loader, inner, split in (('train', 'dataset.dataset', 'train'), ('val', 'dataset', 'val'),
                                 ('test', 'dataset', 'val')):  # fmt: skip
        options[f'{loader}_dataloader.{inner}'] = dict(
            _delete_=True, type='FolderSegDataset', data_root=str(folder), split=split, num_classes=4, pipeline=steps
        )
    return SweepJob(SweepRun('x', TWIN), 1, str(work / 'run'), options, **more)


@pytest.mark.slow
def test_train_and_score(folder, tmp_path):
    job = tiny_job(folder, tmp_path, protocols=('mmseg',), threads=1, refit=True)
    assert make_neighbours(job) == dict(path=str(tmp_path / 'index.npz'), made=True)
    assert make_neighbours(job)['made'] is False
    run = train_and_score(job)
    for head in ('probe', 'level1'):
        assert {f'{head}/{kind}' for kind in ('mIoU', 'aAcc', 'NMI', 'ARI')} <= set(run['scores'])
        assert run['scores'][f'mmseg:{head}/mIoU'] == pytest.approx(run['scores'][f'{head}/mIoU'])
        refitted = {f'refit:{head}/{kind}' for kind in ('mIoU', 'aAcc', 'clusters', 'effective', 'delta')}
        assert refitted <= set(run['scores']) and 1 <= run['scores'][f'{head}/clusters'] <= 4
    assert {'linear/mIoU', 'linear/aAcc'} <= set(run['scores'])
    figures = {f'train/omh_{name}_{pair}' for pair in (12, 23) for name in
               ('sparsity', 'parents_mean', 'parents_max', 'violation', 'iterations')}  # fmt: skip
    assert figures | {f'train/omh_used_{level}' for level in (1, 2, 3)} <= set(run['figures'])
    assert 'train/loss' in run['figures'] and not {'train/lr', 'train/time'} & set(run['figures'])
    assert run['ms_per_step'] > 0 and run['memory'] > 50 and run['memory_of'] == 'process'
    # Cut off between its last step and its result, it is scored without training again.
    again = train_and_score(job)
    assert again['scores'] == pytest.approx(run['scores']) and again['figures'] == pytest.approx(run['figures'])
    (tmp_path / 'run' / 'last_checkpoint').write_text('')  # cut off while that was written
    assert train_and_score(job)['scores'] == pytest.approx(run['scores'])


def test_images_without_labels(folder, tmp_path):
    shutil.rmtree(folder / 'labels')
    make_neighbours(tiny_job(folder, tmp_path))
    run = train_and_score(tiny_job(folder, tmp_path))
    assert run['scores'] and all(name.startswith('label_free/') for name in run['scores'])
    assert 'train/omh_sparsity_12' in run['figures']


def test_note_of_the_settings_has_the_source(tmp_path, made):
    sweep(schedule('a', seeds=(0,)), tmp_path)
    assert (tmp_path / 'a' / 'seed0' / NOTE).read_text().endswith(' ' + source_key())
