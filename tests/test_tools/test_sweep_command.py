"""The command for sweeps: what it is asked for, what it refuses, what it prints."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from omh_mmseg.commands.analysis_tools import sweep
from omh_mmseg.study import runner

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / 'configs' / 'smooseg_vit-t8_demo.py'
RUNS = [f'a: {CONFIG}', f'b: {CONFIG} model.num_classes=5']


@pytest.fixture
def given() -> dict:
    """What the command handed on."""
    return {}


@pytest.fixture
def call(given, monkeypatch) -> Callable[..., None]:
    """Run the command with these words; made-up rows come back."""

    def run_sweep(schedule, work_dir, options, resources, only, any_source, train, runs_dir):
        given.update(schedule=schedule, options=options, resources=resources, only=only, any_source=any_source,
                     train=train, runs_dir=runs_dir)  # fmt: skip
        return [
            dict(name=run.name, seed=seed, status='failed' if run.name == 'b' else 'finished', commit='abc',
                 error='no' if run.name == 'b' else '', scores={})
            for run in schedule.runs for seed in schedule.seeds
        ]  # fmt: skip

    def words(*arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['sweep.py', *map(str, arguments)])
        monkeypatch.setattr(runner, 'run_sweep', run_sweep)
        sweep.main()

    return words


def test_runs_of_the_command_line(call, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        call('--work-dir', tmp_path, '--seeds', 4, 5, '--reference', 'a', '--runs', *RUNS)
    assert end.value.code == 1
    printed = capsys.readouterr().out
    assert re.search(r'\| a +\| 2 ', printed) and 'seed 4: no; seed 5: no' in printed and str(tmp_path) in printed


def test_options(call, given, tmp_path):
    call('--work-dir', tmp_path, '--jobs', 2, '--threads', 3, '--only', 'a*', '--any-source', '--tables-only',
         '--runs-dir', tmp_path / 'runs', '--protocols', 'mmseg', '--new-interpreters', '--runs', RUNS[0],
         '--cfg-options', 'data_root=x')  # fmt: skip
    assert (given['resources'].jobs, given['resources'].threads, given['resources'].reuse_imports) == (2, 3, False)
    assert given['only'] == ['a*'] and given['any_source'] and not given['train']
    assert given['runs_dir'] == str(tmp_path / 'runs') and given['options'] == {'data_root': 'x'}
    assert given['schedule'].seeds == (0, 1, 2) and given['schedule'].protocols == ('mmseg',)


def test_a_schedule_and_its_placeholders():
    args = sweep.build_parser().parse_args([
        str(REPOSITORY / 'configs/study/weights.py'), '--work-dir', 'x', '--seeds', '7', '--set', 'host=hp',
    ])  # fmt: skip
    schedule = sweep.read_arguments(args)
    assert schedule.seeds == (7,) and schedule.references == ('host', 'control')
    assert Path(schedule.runs[0].config).name == 'hp_vit-t8_demo.py'


def test_one_host_on_several_backbones(call, given, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call('--work-dir', tmp_path, '--host', CONFIG, '--backbones', 'a: swin-t', 'b: resnet-18 random', '--seeds', 0)
    schedule = given['schedule']
    assert [(run.name, run.config, run.random) for run in schedule.runs] == [
        ('a', str(CONFIG), False), ('b', str(CONFIG), True)
    ]  # fmt: skip
    assert schedule.timed_images == 20 and schedule.figures[0]['file'] == 'backbones.png'
    call('--work-dir', tmp_path, '--host', CONFIG, '--backbones', 'swin-t', '--timed-images', 0)
    assert given['schedule'].timed_images == 0


@pytest.mark.parametrize(('words', 'message'), [
    ([], 'give one of these: a schedule file, --runs, or --host with --backbones'),
    (['x.py', '--runs', 'x'], 'give one of these: a schedule file'),
    (['--backbones', 'swin-t'], 'give both or neither'),
    (['--host', 'no_host.py', '--backbones', 'swin-t'], 'no config file no_host.py'),
    (['--host', CONFIG, '--backbones', 'swin-x'], 'no backbone block'),
    (['no_schedule.py'], 'no config file no_schedule.py'),
    (['--runs', 'a: x.py fast'], "'fast' is none"),
    (['--runs', *RUNS, '--reference', 'c'], "references has 'c', which is no run; the runs are a, b"),
    (['--runs', *RUNS, '--devices', 'gpu'], "got 'gpu'"),
    (['--runs', *RUNS, '--protocols', 'x'], "there is no protocol 'x'"),
])  # fmt: skip
def test_wrong_words(call, tmp_path, words, message):
    with pytest.raises(SystemExit) as end:
        call(*words, '--work-dir', tmp_path)
    assert str(end.value.code).startswith('sweep.py: ') and message in str(end.value.code)
