"""Each run in a separate process: kept when finished, continued when cut off, identified by its settings."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from omh_mmseg.engine import launch
from omh_mmseg.stack import keep_imports
from omh_mmseg.utils.files import write_text

try:
    import fcntl
except ImportError:  # no Unix
    fcntl = None  # type: ignore[assignment]

RESULT, CONSOLE, NOTE, LOCK = 'result.json', 'console.log', 'settings.sha256', '.lock'
ERROR_LINES = 3


@dataclass(frozen=True)
class ProcessRun:
    """A piece of work that a separate process carries out in a folder that no other run uses.

    Attributes:
        identity: Entries of the result whether the run fails or not.
        folder: Of the run; gets ``result.json``, ``console.log`` and what the work itself writes.
        key: Tells runs of other settings apart; see `settings_key`.
        work: Function of a module that is given ``argument`` and returns a dict of plain data.
        argument: Anything that can be pickled.
        asked: What the result must hold beside that of the work itself, such as the scores of a protocol. A finished
            run that lacks some of it is taken up again where it ended.
    """

    identity: Mapping[str, Any]
    folder: Path
    key: str
    work: Callable[[Any], dict[str, Any]]
    argument: Any
    asked: tuple[str, ...] = ()

    def finished(self) -> dict[str, Any] | None:
        """The stored result of a run with this key that did not fail, and has what is asked for."""
        stored = stored_result(self.folder, self.key, self.asked)
        return None if stored is None or stored.get('error') else stored

    def start(self, context: Any) -> BaseProcess:
        """Start the process; checkpoints of other settings are not continued.

        It waits for another process at work in the folder, and takes over what that one finished with this key.

        Args:
            context: Of ``multiprocessing``, by `process_context` or other than ``'fork'``.
        """
        process: BaseProcess = context.Process(target=_work, args=(self,))
        process.start()
        return process

    def result(self, process: BaseProcess) -> dict[str, Any]:
        """What an ended process left behind, or the error that it died of."""
        stored = stored_result(self.folder, self.key, self.asked)
        if stored is not None:
            return stored
        return dict(self.identity) | dict(
            error=f'the process ended with status {process.exitcode}, by lack of memory perhaps; '
            f'see {self.folder / CONSOLE}'
        )


def settings_key(*settings: Any) -> str:
    """A hash of plain data: equal for equal settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def stored_result(folder: Path, key: str, asked: Collection[str] = ()) -> dict[str, Any] | None:
    """The result in a folder, failed or not, or None if there is none with this key and what is asked for."""
    try:
        stored = json.loads((folder / RESULT).read_text(encoding='utf-8'))
        fits = stored['key'] == key and set(asked) <= set(stored.get('asked', ()))
        return stored['run'] if fits else None
    except (OSError, ValueError, KeyError):
        return None


def forget_other_settings(folder: Path, key: str) -> None:
    """Keep checkpoints of runs with other settings from being continued, and stored results from being taken."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / NOTE
    if not note.is_file() or note.read_text() != key:
        (folder / launch.LATEST).unlink(missing_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    write_text(note, key)


def process_context(preload: str, reuse_imports: bool = True) -> Any:
    """The context of ``multiprocessing`` to start runs with.

    Importing torch and the mm packages takes seconds. Without a GPU, a server process imports them once and every run
    is forked from it before it has done anything, which is as clean as a new interpreter; where there is a GPU, the
    choice of the device must come before the imports, so that every run has a new interpreter.

    Args:
        preload: Module that imports what the runs need.
        reuse_imports: False for a new interpreter in any case.
    """
    if not reuse_imports or torch.cuda.is_available() or 'forkserver' not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([preload])
    # The server imports before it hears of this process's import path.
    with environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        forkserver.ensure_running()
    return context


@contextmanager
def environment(**changes: str) -> Iterator[None]:
    """Set environment variables for the processes that are started inside the context."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Be the only process at work in a folder; the lock goes with the process, however that ends.

    Args:
        folder: Made if absent.
        wait: For another process to finish.

    Raises:
        BlockingIOError: Another process is at work there and ``wait`` is False.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, 'w') as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise BlockingIOError(
                    f'another process is at work in {folder}; wait for its end or choose another --work-dir'
                ) from None
        yield


def error_line(error: BaseException) -> str:
    """An exception as one line of a table."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {" ".join(lines[:ERROR_LINES])}'


def peak_memory() -> tuple[str, float]:
    """Whose memory, and its peak in MiB: the GPU's allocations where there is one, else this process's."""
    if torch.cuda.is_available():
        return 'GPU', round(torch.cuda.max_memory_allocated() / 2**20, 1)
    try:
        # Unlike getrusage, this does not count what the parent had before this process was started.
        status = Path('/proc/self/status').read_text()
        return 'process', round(int(re.search(r'VmHWM:\s*(\d+)', status)[1]) / 2**10, 1)  # type: ignore[index]
    except (OSError, TypeError):
        import resource

        unit = 2**20 if sys.platform == 'darwin' else 2**10
        return 'process', round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def _work(run: ProcessRun) -> None:
    """The other process: do the work, and leave the result or the error in a file."""
    import omh_mmseg  # noqa: F401  registers everything

    keep_imports()
    _end_with_the_parent()
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.folder / CONSOLE, 'a', encoding='utf-8') as console, locked(run.folder):
        for stream in (sys.stdout, sys.stderr):
            os.dup2(console.fileno(), stream.fileno())
        if run.finished() is not None:
            return
        forget_other_settings(run.folder, run.key)
        result = dict(run.identity)
        try:
            result |= run.work(run.argument)
        except Exception as error:
            traceback.print_exc()
            result['error'] = error_line(error)
        write_text(run.folder / RESULT, json.dumps(dict(key=run.key, asked=run.asked, run=result), indent=1))


def _end_with_the_parent() -> None:
    """End this process when its parent is killed, as nobody would collect the result."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(3)

    threading.Thread(target=watch, name='end with the parent', daemon=True).start()
