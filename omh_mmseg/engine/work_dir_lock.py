"""One training at a time in a work directory."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from omh_mmseg.utils.files import write_text

LOCK, NOTE = '.training.lock', '.training.json'


@contextmanager
def work_dir_lock(work_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only process that trains in a work directory; this process may say so several times.

    The system gives the lock back when the process ends, however it ends.

    Args:
        work_dir: Made if absent. Gets two hidden files, the lock and a note of who holds it.

    Raises:
        BlockingIOError: Another process trains there; the message names it.
    """
    folder = Path(work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock((folder / LOCK).resolve(), is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(
            f'{_holder(folder / NOTE)} trains in {folder}; wait for it or end it, or choose another directory with '
            '--work-dir'
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(timespec='seconds')
        write_text(folder / NOTE, json.dumps(dict(pid=os.getpid(), host=socket.gethostname(), since=since)))
        yield
    finally:
        lock.release()


def _holder(note: Path) -> str:
    try:
        written = json.loads(note.read_text(encoding='utf-8'))
        return f'process {written["pid"]} on {written["host"]}, since {written["since"]},'
    except (OSError, ValueError, KeyError, TypeError):
        return 'another process'
