"""Processes of the CRF; the worker script is replaced by one that needs numpy alone."""

from __future__ import annotations

import copy
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from omh_mmseg.models.prediction.crf import pydensecrf_worker, worker_pool
from omh_mmseg.models.prediction.crf.worker_pool import WorkerPool


@pytest.fixture
def doubling(tmp_path: Path, monkeypatch) -> None:
    """Workers that double an array, fail on 13 and die on 666."""
    script = tmp_path / 'worker.py'
    body = f"""
        import importlib.util, os, sys
        spec = importlib.util.spec_from_file_location('worker', {pydensecrf_worker.__file__!r})
        worker = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(worker)
        def double(array):
            print('this is not an answer')
            if array[0] == 13:
                raise ValueError('unlucky')
            if array[0] == 666:
                os._exit(3)
            return 2 * array
        worker.mean_field = double
        worker.serve()
    """
    script.write_text(textwrap.dedent(body))
    monkeypatch.setattr(worker_pool, 'pydensecrf_worker', SimpleNamespace(__file__=str(script)))


def jobs(*numbers: int):
    # Larger than a pipe's buffer.
    return ((number, (np.full(50_000, float(number)),)) for number in numbers)


@pytest.mark.parametrize('size', [1, 3])
def test_results_in_order(doubling, size):
    pool = WorkerPool(size)
    for _ in range(2):
        results = list(pool.map(jobs(*range(7))))
        assert [key for key, _ in results] == list(range(7))
        assert all((array == 2 * key).all() for key, array in results)
    assert len(pool._workers) == size
    pool.close()


def test_failure_names_the_error(doubling):
    with pytest.raises(RuntimeError, match='pydensecrf failed: ValueError: unlucky'):
        list(WorkerPool(2).map(jobs(1, 13, 2)))


def test_death_is_an_error_and_the_pool_goes_on(doubling):
    pool = WorkerPool(2)
    with pytest.raises(RuntimeError, match=r"worker ended with status 3; .*test_cfg.crf.backend='torch'"):
        list(pool.map(jobs(1, 666, 2, 3)))
    assert [key for key, _ in pool.map(jobs(5, 6))] == [5, 6]
    pool.close()


def test_abandoned_results_do_not_meet_the_next_call(doubling):
    pool = WorkerPool(2)
    results = pool.map(jobs(1, 2, 3))
    next(results)
    results.close()
    assert [array[0] for _, array in pool.map(jobs(7, 8))] == [14, 16]
    pool.close()


def test_processes_end_with_the_pool(doubling):
    pool = WorkerPool(2)
    list(pool.map(jobs(1, 2)))
    workers = list(pool._workers)
    del pool
    assert all(worker.poll() is not None for worker in workers)


def test_a_copy_has_processes_of_its_own(doubling):
    pool = WorkerPool(2)
    list(pool.map(jobs(1)))
    other = copy.deepcopy(pool)
    assert other.size == 2 and not other._workers
    pool.close()


def test_size():
    with pytest.raises(ValueError, match='at least 1; got 0'):
        WorkerPool(0)
