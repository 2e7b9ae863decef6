"""What is on disk after crashes, damage and full disks, and what other processes see."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from omh_mmseg.feature_cache import store
from omh_mmseg.feature_cache.store import RECORD, DamagedItemError, FieldFile, ProcessLock


@pytest.fixture
def lock(tmp_path: Path):
    held = ProcessLock(tmp_path)
    yield held
    held.close()


def content(item: int) -> np.ndarray:
    return np.random.default_rng(item).integers(0, 256, 100 + item, dtype=np.uint8)


@pytest.fixture
def field(tmp_path: Path, lock: ProcessLock) -> FieldFile:
    """A field of six items, of which 0, 2 and 5 are there."""
    made = FieldFile(tmp_path, 'features', 6)
    for item in (5, 0, 2):
        made.put(item, content(item), (1, 100 + item), lock)
    return made


def reopened(field: FieldFile) -> FieldFile:
    return FieldFile(field.folder, field.name, field.items)


def assert_holds(field: FieldFile, *items: int) -> None:
    assert field.present().nonzero()[0].tolist() == list(items)
    for item in items:
        got, shape = field.get(item)
        assert np.array_equal(got.numpy(), content(item)) and shape == (1, 100 + item)


def test_what_was_written_is_read(field) -> None:
    assert_holds(field, 0, 2, 5)
    assert_holds(reopened(field), 0, 2, 5)
    with pytest.raises(DamagedItemError, match='item 1 of features in the feature cache .* absent. Start again'):
        field.get(1)


def test_results_are_writable_and_independent(field) -> None:
    first, _ = field.get(0)
    first.zero_()
    assert_holds(field, 0, 2, 5)


def test_other_processes_see_new_items(field, lock) -> None:
    other = reopened(field)
    field.put(1, content(1), (1, 101), lock)
    assert not other.present(1, 2)[0]
    other.reload(1, 2)
    assert_holds(other, 0, 1, 2, 5)


def test_survives_pickling(field) -> None:
    field.get(0)
    assert_holds(pickle.loads(pickle.dumps(field)), 0, 2, 5)


def test_damaged_content(field) -> None:
    start = int(field._records[2]['offset'])
    with open(field.data_path, 'r+b') as file:
        file.seek(start + 50)
        file.write(bytes([content(2)[50] ^ 1]))
    other = reopened(field)
    assert other.sound(0) and not other.sound(2)
    with pytest.raises(DamagedItemError, match='item 2 .* its check sum is wrong'):
        other.get(2)


def test_content_cut_off(field) -> None:
    """Item 2 was written last; reading beyond the end would kill the process."""
    field.get(2)
    os.truncate(field.data_path, int(field._records[2]['offset']) + 50)
    for one in (field, reopened(field)):
        assert_holds(one, 0, 5)
        with pytest.raises(DamagedItemError, match=r'features.bin ends before it'):
            one.get(2)


@pytest.mark.parametrize('byte', range(0, 36, 5))
def test_torn_record(field, byte) -> None:
    with open(field.index_path, 'r+b') as file:
        file.seek(2 * RECORD.itemsize + byte)
        old = file.read(1)[0]
        file.seek(2 * RECORD.itemsize + byte)
        file.write(bytes([old ^ 255]))
    assert_holds(reopened(field), 0, 5)


def test_record_of_another_item(field) -> None:
    with open(field.index_path, 'r+b') as file:
        record = file.read(RECORD.itemsize)
        file.seek(RECORD.itemsize)
        file.write(record)
    assert_holds(reopened(field), 0, 2, 5)


def test_index_cut_off_within_a_record(field) -> None:
    os.truncate(field.index_path, 2 * RECORD.itemsize + 10)
    assert_holds(reopened(field), 0)


def test_full_disk_leaves_no_item(field, lock, monkeypatch) -> None:
    """Half of the content is on disk when the disk is full; the next one is written behind it."""
    write = os.pwrite

    def filling(file: int, data: memoryview, offset: int) -> int:
        if len(data) > 50:
            return write(file, data[:50], offset)
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(store.os, 'pwrite', filling)
    with pytest.raises(OSError, match='No space left'):
        field.put(1, content(1), (1, 101), lock)
    monkeypatch.setattr(store.os, 'pwrite', write)
    assert_holds(reopened(field), 0, 2, 5)
    field.put(1, content(1), (1, 101), lock)
    assert_holds(reopened(field), 0, 1, 2, 5)


def test_short_writes_go_on(tmp_path, lock, monkeypatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(store.os, 'pwrite', lambda file, data, offset: write(file, data[:7], offset))
    field = FieldFile(tmp_path, 'sample', 6)
    field.put(3, content(3), (1, 103), lock)
    monkeypatch.undo()
    assert_holds(reopened(field), 3)


def test_void(field) -> None:
    field.void(2)
    assert_holds(field, 0, 5)
    assert_holds(reopened(field), 0, 5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_types_by_their_bytes(tmp_path, lock, dtype) -> None:
    field = FieldFile(tmp_path, 'features', 1)
    values = torch.randn(3, 4, 5).to(dtype)
    field.put(0, values.flatten().view(torch.uint8).numpy(), (3, 4, 5), lock)
    got, shape = field.get(0)
    assert torch.equal(got.view(dtype).view(shape), values)


def _take(folder: Path, ranges: list[tuple[int, int]], answers: multiprocessing.Queue) -> None:
    lock = ProcessLock(folder)
    answers.put([lock.take(*one) for one in ranges])


def test_claims_exclude_other_processes(tmp_path, lock) -> None:
    """Overlapping ranges are refused, and free again once given back."""
    fork = multiprocessing.get_context('fork')
    answers = fork.Queue()

    def asked() -> list[bool]:
        process = fork.Process(target=_take, args=(tmp_path, [(0, 4), (4, 8), (10, 14)], answers))
        process.start()
        process.join(60)
        return answers.get(timeout=60)

    assert lock.take(2, 6)
    assert asked() == [False, False, True]
    lock.release(2, 6)
    assert asked() == [True, True, True]
