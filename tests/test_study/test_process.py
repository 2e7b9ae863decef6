"""Runs in processes of their own: how they end, and what is left of them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from omh_mmseg.engine import launch
from omh_mmseg.study import process as run_process
from omh_mmseg.study.process import (
    CONSOLE,
    NOTE,
    RESULT,
    ProcessRun,
    environment,
    forget_other_settings,
    locked,
    process_context,
    settings_key,
    stored_result,
)


@pytest.fixture(scope='module')
def context() -> Any:
    return process_context(run_process.__name__)


def finish(run: ProcessRun, context: Any) -> dict:
    process = run.start(context)
    process.join()
    return run.result(process)


def test_ends_of_a_run(tmp_path, context):
    """It returns, raises, dies, and is killed."""
    done = ProcessRun(dict(name='a'), tmp_path / 'a', 'key', dict, [('scores', 1)])
    assert finish(done, context) == done.finished() == dict(name='a', scores=1)
    raised = ProcessRun(dict(name='b'), tmp_path / 'b', 'key', int, 'x')
    error = "ValueError: invalid literal for int() with base 10: 'x'"
    assert finish(raised, context) == dict(name='b', error=error) and raised.finished() is None
    assert 'Traceback' in (tmp_path / 'b' / CONSOLE).read_text()
    died = finish(ProcessRun(dict(name='c'), tmp_path / 'c', 'key', os._exit, 9), context)
    assert died['name'] == 'c' and died['error'].startswith('the process ended with status 9, by lack of memory')
    slow = ProcessRun(dict(name='d'), tmp_path / 'd', 'key', time.sleep, 60)
    process = slow.start(context)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert 'status -9' in slow.result(process)['error'] or 'status 255' in slow.result(process)['error']


def test_what_another_process_finished_is_taken_over(tmp_path, context):
    run = ProcessRun(dict(name='a'), tmp_path / 'a', 'key', dict, [('scores', 1)])
    with locked(run.folder):
        process = run.start(context)
        process.join(1)
        assert process.is_alive()
        (run.folder / RESULT).write_text(json.dumps(dict(key='key', run=dict(scores=2))))
        (run.folder / launch.LATEST).touch()
    process.join()
    assert run.result(process) == dict(scores=2) and (run.folder / launch.LATEST).is_file()
    other = ProcessRun(dict(name='a'), tmp_path / 'a', 'other key', dict, [('scores', 3)])
    assert finish(other, context) == dict(name='a', scores=3) and not (run.folder / launch.LATEST).exists()


def test_a_result_of_other_settings_is_none(tmp_path):
    (tmp_path / RESULT).write_text(json.dumps(dict(key='key', run=dict(a=1))))
    assert stored_result(tmp_path, 'key') == dict(a=1) and stored_result(tmp_path, 'other') is None
    # Nor one that lacks what is asked for, while one that has more will do.
    assert stored_result(tmp_path, 'key', ['refit']) is None
    (tmp_path / RESULT).write_text(json.dumps(dict(key='key', asked=['protocol x', 'refit'], run=dict(a=1))))
    assert stored_result(tmp_path, 'key', ['refit']) == stored_result(tmp_path, 'key') == dict(a=1)
    for broken in ('', '{"key": "key"', '{"key": "key"}'):
        (tmp_path / RESULT).write_text(broken)
        assert stored_result(tmp_path, 'key') is None
    assert stored_result(tmp_path / 'none', 'key') is None


def test_other_settings_are_not_continued(tmp_path):
    for name in (launch.LATEST, RESULT):
        (tmp_path / name).touch()
    forget_other_settings(tmp_path, 'key')
    assert [path.name for path in tmp_path.iterdir()] == [NOTE]
    (tmp_path / launch.LATEST).touch()
    forget_other_settings(tmp_path, 'key')
    assert (tmp_path / launch.LATEST).is_file()


def test_keys():
    assert settings_key(dict(a=1, b=(2,)), Path('x')) == settings_key(dict(b=[2], a=1), 'x')
    assert settings_key(dict(a=1)) != settings_key(dict(a=2)) != settings_key(dict(a='1'))


def test_environment(monkeypatch):
    monkeypatch.setenv('OMH_ONE', '1')
    monkeypatch.delenv('OMH_TWO', raising=False)
    with pytest.raises(KeyError), environment(OMH_ONE='3', OMH_TWO='2'):
        assert (os.environ['OMH_ONE'], os.environ['OMH_TWO']) == ('3', '2')
        raise KeyError
    assert os.environ['OMH_ONE'] == '1' and 'OMH_TWO' not in os.environ


def test_lock(tmp_path):
    with locked(tmp_path), pytest.raises(BlockingIOError, match='wait for its end or choose another --work-dir'):
        with locked(tmp_path, wait=False):
            pass
    with locked(tmp_path, wait=False):
        pass


def test_with_a_gpu_every_run_has_a_new_interpreter(monkeypatch):
    monkeypatch.setattr(run_process.torch.cuda, 'is_available', lambda: True)
    assert process_context(run_process.__name__).get_start_method() == 'spawn'
    monkeypatch.undo()
    assert process_context(run_process.__name__, reuse_imports=False).get_start_method() == 'spawn'
