"""The commands that messages name are commands that this user can run."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from omh_mmseg.utils.commands import started_with, suggested_command
from omh_mmseg.utils.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]


def parsed(words: list[str]) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=Settings)
    return parser.parse_args(words).cfg_options


def test_command_repeats_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    given = ['--cfg-options', 'a.b=1', 'c=x y', 'd=[1,2]', 'e=true', 'f=None', "g=['p','q']", 'h=1e-3']
    with started_with('my config.py', parsed(given)):
        line = suggested_command('prepare.py neighbours', '--force', config='other.py')
    words = shlex.split(line)
    assert words[:5] == ['python', 'tools/prepare.py', 'neighbours', 'my config.py', '--force']
    assert parsed(words[5:]) == parsed(given)


def test_contexts_end_and_nest() -> None:
    with started_with('a.py'):
        with pytest.raises(KeyError), started_with('b.py', dict(x=1)):
            raise KeyError
        assert suggested_command('prepare.py neighbours').endswith('prepare.py neighbours a.py')
        with started_with(None):
            assert 'CONFIG' in suggested_command('prepare.py neighbours')


def test_unknown_settings_are_mentioned() -> None:
    """mmseg's own commands tell nobody what they were started with."""
    line, remark = suggested_command('prepare.py neighbours').splitlines()
    assert line.endswith('prepare.py neighbours CONFIG')
    assert remark == '(CONFIG is the config of this run; with the --cfg-options of this run, if it has any)'
    line, remark = suggested_command('prepare.py neighbours', config='c.py').splitlines()
    assert line.endswith('prepare.py neighbours c.py') and remark.startswith('(with the --cfg-options of this run')


def test_named_commands_exist() -> None:
    from omh_mmseg.datasets.five_crop import stored
    from omh_mmseg.datasets.neighbours import index
    from omh_mmseg.structures import assignment

    for command in (stored.COMMAND, index.COMMAND, assignment.TOOL):
        assert Path(REPOSITORY, 'tools', command.split()[0]).is_file()
