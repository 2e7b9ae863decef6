"""One training at a time in a work directory, whatever becomes of the one before."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from omh_mmseg.engine.hooks import WorkDirLockHook, work_dir_lock_hook
from omh_mmseg.engine.work_dir_lock import NOTE, work_dir_lock
from omh_mmseg.launchers import launched_rank

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'train.py'
DEMO = TOOL.parents[1] / 'configs' / 'smooseg_vit-t8_demo.py'


def _hold(folder: Path, held: Any, child: bool) -> None:
    with work_dir_lock(folder):
        if child and os.fork() == 0:  # such as the workers that load data
            time.sleep(60)
            os._exit(0)
        held.set()
        time.sleep(60)


@pytest.fixture
def holder() -> Iterator[Callable[..., Any]]:
    """``holder(folder)``: another process that holds the lock."""
    context = multiprocessing.get_context('fork')
    started: list[Any] = []

    def start(folder: Path, child: bool = False) -> Any:
        held = context.Event()
        process = context.Process(target=_hold, args=(folder, held, child))
        process.start()
        started.append(process)
        assert held.wait(30)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def test_the_second_process_is_told_of_the_first(tmp_path, holder) -> None:
    process = holder(tmp_path / 'run')
    since = json.loads((tmp_path / 'run' / NOTE).read_text())['since']
    message = f'process {process.pid} on {socket.gethostname()}, since {since}, trains in {tmp_path / "run"};'
    with pytest.raises(BlockingIOError, match=f'^{re.escape(message)}.*--work-dir'), work_dir_lock(tmp_path / 'run'):
        pass
    with work_dir_lock(tmp_path / 'other'):
        pass
    (tmp_path / 'run' / NOTE).write_text('{"pid"')
    with pytest.raises(BlockingIOError, match='^another process trains in'), work_dir_lock(tmp_path / 'run'):
        pass


@pytest.mark.parametrize('child', [False, True], ids=['alone', 'with a child that lives on'])
def test_a_killed_process_leaves_no_lock(tmp_path, holder, child) -> None:
    process = holder(tmp_path, child)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with work_dir_lock(tmp_path):
        pass


def test_one_process_may_ask_several_times(tmp_path, monkeypatch, holder) -> None:
    """The command holds the lock already when its hook asks; the way to the directory does not matter."""
    hook, runner = WorkDirLockHook(), SimpleNamespace(work_dir=str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with work_dir_lock('.'):
        hook.before_train(runner)
        hook.after_run(runner)
        hook.before_train(runner)
    hook.after_run(runner)
    holder(tmp_path)
    with pytest.raises(BlockingIOError):
        hook.before_train(runner)
    monkeypatch.setattr(work_dir_lock_hook, 'is_main_process', lambda: False)
    hook.before_train(runner)


def test_a_run_that_broke_off_leaves_no_lock(tmp_path) -> None:
    hook = WorkDirLockHook()
    hook.before_train(SimpleNamespace(work_dir=str(tmp_path)))
    del hook
    context = multiprocessing.get_context('fork')
    free = context.Process(target=_take, args=(tmp_path,))
    free.start()
    free.join(30)
    assert free.exitcode == 0


def _take(folder: Path) -> None:
    with work_dir_lock(folder):
        pass


def test_train_stops_before_it_writes_anything(tmp_path, holder, monkeypatch) -> None:
    holder(tmp_path / 'run')
    before = sorted(tmp_path.rglob('*'))
    monkeypatch.setattr(sys, 'argv', ['train.py', str(DEMO), '--work-dir', str(tmp_path / 'run')])
    with pytest.raises(SystemExit, match=r'^train.py: process \d+ on .* trains in'):
        runpy.run_path(str(TOOL), run_name='__main__')
    assert sorted(tmp_path.rglob('*')) == before


def test_ranks_before_they_have_found_each_other(monkeypatch) -> None:
    assert [launched_rank(launcher) for launcher in ('none', 'pytorch')] == [0, 0]
    monkeypatch.setenv('RANK', '3')
    monkeypatch.setenv('SLURM_PROCID', '2')
    assert [launched_rank(launcher) for launcher in ('none', 'pytorch', 'slurm')] == [0, 3, 2]
