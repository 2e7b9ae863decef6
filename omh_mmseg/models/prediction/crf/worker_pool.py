"""Processes that compute dense CRFs side by side without inheriting anything from this one."""

from __future__ import annotations

import pickle
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from omh_mmseg.models.prediction.crf import pydensecrf_worker

Key = TypeVar('Key')


class WorkerPool:
    """As many processes as asked for, each with one job at a time.

    pydensecrf holds the interpreter's lock while it computes, so that threads would wait for one another. Forking is
    out of the question once an accelerator is in use, and spawning as `multiprocessing` does it imports the main script
    and the whole stack again: these processes run one small script instead. They end with the pool, also where this
    process is killed, because their input ends then.

    Args:
        size: Number of processes, at least 1. Started with the first job.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f'the number of CRF workers must be at least 1; got {size}.')
        self.size = size
        self._workers: list[subprocess.Popen] = []

    def __reduce__(self) -> tuple[type[WorkerPool], tuple[int]]:
        """A copy of the model that holds this starts processes of its own."""
        return WorkerPool, (self.size,)

    def map(self, jobs: Iterable[tuple[Key, tuple[Any, ...]]]) -> Iterator[tuple[Key, np.ndarray]]:
        """Compute jobs (key, arguments of ``mean_field``); results come in the order of the jobs.

        Raises:
            RuntimeError: A process died or its job failed; the rest is stopped.
        """
        if not self._workers:
            self._workers = [_start() for _ in range(self.size)]
            weakref.finalize(self, _stop, self._workers)
        idle, busy = deque(self._workers), deque[tuple[Key, subprocess.Popen]]()
        try:
            for key, job in jobs:
                if not idle:
                    first, worker = busy.popleft()
                    yield first, _receive(worker)
                    idle.append(worker)
                worker = idle.popleft()
                _send(worker, job)
                busy.append((key, worker))
            while busy:
                first, worker = busy.popleft()
                yield first, _receive(worker)
        except BaseException:
            # A worker may be in the middle of a job; its late answer must not meet the next call.
            self.close()
            raise

    def close(self) -> None:
        """Stop the processes; the next job starts new ones."""
        _stop(self._workers)
        self._workers = []


def _start() -> subprocess.Popen:
    command = [sys.executable, pydensecrf_worker.__file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _send(worker: subprocess.Popen, job: tuple[Any, ...]) -> None:
    assert worker.stdin is not None
    try:
        pickle.dump(job, worker.stdin, protocol=5)
        worker.stdin.flush()
    except BrokenPipeError as error:
        raise _died(worker) from error


def _receive(worker: subprocess.Popen) -> np.ndarray:
    assert worker.stdout is not None
    try:
        answer = pickle.load(worker.stdout)
    except (EOFError, pickle.UnpicklingError) as error:
        raise _died(worker) from error
    if isinstance(answer, str):
        raise RuntimeError(f'pydensecrf failed: {answer}')
    return answer


def _died(worker: subprocess.Popen) -> RuntimeError:
    status = worker.wait()
    reason = f'signal {-status}' if status < 0 else f'status {status}'
    return RuntimeError(
        f'a CRF worker ended with {reason}; the system may have been out of memory. Lower test_cfg.crf.workers, or set '
        "test_cfg.crf.backend='torch', which needs no workers."
    )


def _stop(workers: list[subprocess.Popen]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
