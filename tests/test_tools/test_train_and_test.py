"""``tools/train.py`` and ``tools/test.py`` have mmseg's options; the shell commands build the right call."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import mmseg
import pytest
from loopback import Loopback

from omh_mmseg.commands import test, train
from omh_mmseg.engine import launch
from omh_mmseg.models.backbones.checkpoint import read_state_dict

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
MMSEG_TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'


EVERYWHERE = {'--accept-differences', '--trust'}
ADDED = {'train.py': EVERYWHERE, 'test.py': {'--protocol', '--no-crf', '--no-flip', *EVERYWHERE}}


def options_of_mmseg(name: str) -> set[str]:
    """Every option and positional that mmseg's own command declares."""
    source = (MMSEG_TOOLS / name).read_text()
    calls = re.findall(r'add_argument\(((?:\s*\'[^\']+\',?)+)', source)
    return {option for call in calls for option in re.findall(r'\'([^\']+)\'', call)}


COMMANDS = {'train.py': train, 'test.py': test}


def options_of_ours(tool: ModuleType) -> set[str]:
    actions = tool.build_parser()._actions
    return {option for action in actions for option in (action.option_strings or [action.dest])} - {'-h', '--help'}


@pytest.mark.skipif(not MMSEG_TOOLS.is_dir(), reason='mmseg was installed without its tools')
@pytest.mark.parametrize('name', ['train.py', 'test.py'])
def test_options_are_those_of_mmseg(name: str) -> None:
    theirs = options_of_mmseg(name)
    assert '--cfg-options' in theirs and 'config' in theirs
    assert options_of_ours(COMMANDS[name]) == theirs | ADDED.get(name, set())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['train.py', 'absent.py'], 'train.py: there is no config file absent.py'),
        (['test.py', '{config}', 'absent.pth'], 'test.py: there is no checkpoint absent.pth'),
        (['test.py', '{config}', '{config}', '--protocol', 'picie'], "test.py: there is no protocol 'picie'; known"),
        (['test.py', '{config}', '{config}', '--no-crf'], 'test.py: --no-crf and --no-flip change a protocol'),
        (['train.py', '{config}', '--work-dir', '{config}/runs'], 'cannot be written'),
    ],
)
def test_wrong_input_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str],
    message: str,
) -> None:
    config = tmp_path / 'a.py'
    config.write_text('model = dict()\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', [word.format(config=config) for word in arguments])
    with pytest.raises(SystemExit) as caught:
        COMMANDS[arguments[0]].main()
    assert message in str(caught.value.code) and '\n' not in caught.value.code
    assert [file.name for file in tmp_path.iterdir()] == ['a.py']


@pytest.mark.parametrize('digest', ['', '#sha256=00000000'])
def test_weights_that_cannot_be_had_end_a_training_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Loopback,
    digest: str,
) -> None:
    local = tmp_path / 'weights.pth'
    local.write_bytes(b'weights')
    source = f'{local}{digest}' if digest else serve.fail('weights.pth', 500)
    config = tmp_path / 'a.py'
    config.write_text('model = dict()\n')
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', ['train.py', str(config), '--work-dir', str(tmp_path / 'run')])
    # Weights are read once the training starts.
    runner = SimpleNamespace(train=lambda: read_state_dict(source))
    monkeypatch.setattr(launch, 'build_runner', lambda *_: runner)
    with pytest.raises(SystemExit, match='train.py: .*weights.pth') as caught:
        train.main()
    assert '\n' not in caught.value.code


def test_command_runs_from_another_directory(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run(
        [sys.executable, str(TOOLS / 'train.py'), 'absent.py'], cwd=tmp_path, capture_output=True, text=True,
        timeout=600, env=environment,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('train.py: there is no config file absent.py')


def run_with_recorder(
    tmp_path: Path, launcher: str, script: str, *arguments: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a shell command with ``launcher`` replaced by a recorder of its words."""
    recorder = tmp_path / launcher
    recorder.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$RECORD"\n')
    recorder.chmod(0o755)
    record = tmp_path / 'record'
    done = subprocess.run(
        ['bash', str(TOOLS / script), *arguments], cwd=tmp_path, capture_output=True, text=True,
        env={**environment, 'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}', 'RECORD': str(record)},
    )
    return done, record.read_text().splitlines() if record.is_file() else []


@pytest.mark.parametrize(
    ('script', 'positional'), [('dist_train.sh', ['a b.py']), ('dist_test.sh', ['a b.py', 'c.pth'])]
)
def test_distributed_commands(tmp_path: Path, script: str, positional: list[str]) -> None:
    done, words = run_with_recorder(
        tmp_path, 'torchrun', script, *positional, '4', '--cfg-options', 'a="x y"', NNODES='2', PORT='1234'
    )
    assert done.returncode == 0, done.stderr
    assert {'--nnodes=2', '--node_rank=0', '--master_addr=127.0.0.1', '--master_port=1234',
            '--nproc_per_node=4'} <= set(words)
    tool = TOOLS / f'{script[5:-3]}.py'
    assert words[words.index(str(tool)) + 1:] == [*positional, '--launcher', 'pytorch', '--cfg-options', 'a="x y"']


@pytest.mark.parametrize(
    ('script', 'positional'), [('slurm_train.sh', ['a.py']), ('slurm_test.sh', ['a.py', 'c.pth'])]
)
def test_slurm_commands(tmp_path: Path, script: str, positional: list[str]) -> None:
    done, words = run_with_recorder(
        tmp_path, 'srun', script, 'gpu', 'job', *positional, '--amp', GPUS='8', SRUN_ARGS='--time=1 --quiet'
    )
    assert done.returncode == 0, done.stderr
    assert {'--partition=gpu', '--job-name=job', '--gres=gpu:4', '--ntasks=8', '--ntasks-per-node=4',
            '--cpus-per-task=5', '--time=1', '--quiet'} <= set(words)
    tool = TOOLS / f'{script[6:-3]}.py'
    assert words[words.index(str(tool)) + 1:] == [*positional, '--launcher', 'slurm', '--amp']


@pytest.mark.parametrize(
    ('gpus', 'per_node', 'asked'), [('1', None, 1), ('3', None, 3), ('6', None, 4), ('8', '8', 8), ('2', '8', 2)]
)
@pytest.mark.parametrize(('script', 'positional'), [('slurm_train.sh', ['a.py']), ('slurm_test.sh', ['a.py', 'c.pth'])])
def test_slurm_asks_for_as_many_gpus_as_processes(
    tmp_path: Path, script: str, positional: list[str], gpus: str, per_node: str | None, asked: int
) -> None:
    variables = dict(GPUS=gpus) | (dict(GPUS_PER_NODE=per_node) if per_node else {})
    done, words = run_with_recorder(tmp_path, 'srun', script, 'gpu', 'job', *positional, **variables)
    assert done.returncode == 0, done.stderr
    assert {f'--gres=gpu:{asked}', f'--ntasks={gpus}', f'--ntasks-per-node={asked}'} <= set(words)


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_shell_commands_say_their_usage(tmp_path: Path, script: str) -> None:
    done, words = run_with_recorder(tmp_path, 'torchrun', script, 'only-one')
    assert done.returncode == 2 and 'usage:' in done.stderr and words == []
