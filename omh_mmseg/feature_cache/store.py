"""Records of one field of all items on disk: written once each, checked, shared by processes.

A field is two files: ``<name>.bin``, to which contents are appended, and ``<name>.index``, with one record of fixed
length per item that says where its content lies, how it is shaped and what its CRC32 is. The content is written first
and the record after it, and both have a check sum: whatever a crash, a full disk or a second process leaves behind is
either a valid item or none.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows, where nothing stops two processes from making the same item
    fcntl = None  # type: ignore[assignment]

RECORD = np.dtype(
    [
        ('offset', '<u8'), ('size', '<u8'), ('shape', '<u4', (3,)),
        ('content_crc', '<u4'), ('record_crc', '<u4'), ('unused', '<u4'),
    ]
)
CHECKED_BYTES = 32
ALIGNMENT = 64
WRITING = os.O_RDWR | os.O_CREAT | getattr(os, 'O_BINARY', 0)
APPENDING = 1 << 40
"""Byte of the lock file that is locked while contents are appended; those below stand for items."""


class DamagedItemError(OSError):
    """An item whose content is not what was written."""


class FieldFile:
    """One field of the items of a cache.

    Reading maps the file into memory; writing never does, since a full disk would then kill the process.

    Args:
        folder: Of the cache.
        name: Of the field.
        items: N.
    """

    def __init__(self, folder: Path, name: str, items: int) -> None:
        self.folder, self.name, self.items = folder, name, items
        self._records = np.zeros(items, RECORD)
        self._intact = np.zeros(items, bool)
        self._checked = np.zeros(items, bool)
        self._data: int | None = None
        self._map: mmap.mmap | None = None
        self.reload()

    @property
    def data_path(self) -> Path:
        """The file of contents."""
        return self.folder / f'{self.name}.bin'

    @property
    def index_path(self) -> Path:
        """The file of records."""
        return self.folder / f'{self.name}.index'

    def reload(self, start: int = 0, stop: int | None = None) -> None:
        """Read the records of items ``start .. stop - 1`` anew: other processes may have added some."""
        stop = self.items if stop is None else stop
        content = b''
        if self.index_path.is_file():
            with open(self.index_path, 'rb') as index:
                index.seek(start * RECORD.itemsize)
                content = index.read((stop - start) * RECORD.itemsize)
        records = np.frombuffer(content[: len(content) // RECORD.itemsize * RECORD.itemsize], RECORD)
        self._records[start:stop] = 0
        self._records[start : start + len(records)] = records
        for item in range(start, stop):
            self._intact[item] = _is_intact(self._records[item], item)

    def present(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Which of these items have a sound record that points into the file of contents, bool (stop - start,)."""
        length = self.data_path.stat().st_size if self.data_path.is_file() else 0
        records = self._records[start:stop]
        return self._intact[start:stop] & (records['offset'] + records['size'] <= length)

    def sound(self, item: int) -> bool:
        """Whether the content of a present item is what was written."""
        try:
            self.get(item)
        except DamagedItemError:
            return False
        return True

    def get(self, item: int) -> tuple[Tensor, tuple[int, ...]]:
        """Content of an item as uint8 bytes in memory of its own, and its shape (without trailing zeros).

        The check sum is compared at the first reading in each process.

        Raises:
            DamagedItemError: The item is absent, or damaged on disk.
        """
        record = self._records[item]
        if not self._intact[item]:
            raise self._damaged(item, 'it is absent')
        start, size = int(record['offset']), int(record['size'])
        held = self._mapped(start + size)
        if held is None:
            raise self._damaged(item, f'{self.data_path.name} ends before it')
        content = torch.empty(size, dtype=torch.uint8)
        content.numpy()[:] = np.frombuffer(held, np.uint8, size, start)
        if not self._checked[item]:
            if zlib.crc32(content.numpy().data) != record['content_crc']:
                raise self._damaged(item, 'its check sum is wrong')
            self._checked[item] = True
        return content, tuple(int(side) for side in record['shape'] if side)

    def put(self, item: int, content: np.ndarray, shape: tuple[int, ...], lock: ProcessLock) -> None:
        """Write an item, content first.

        Args:
            item: Its number.
            content: Its bytes, uint8.
            shape: At most three sides above 0 to give back with it.
            lock: Of the cache.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        record = np.zeros((), RECORD)
        data = os.open(self.data_path, WRITING, 0o644)
        try:
            with lock.appending():
                start = -(-os.fstat(data).st_size // ALIGNMENT) * ALIGNMENT
                _write(data, content.data, start)
        finally:
            os.close(data)
        record['offset'], record['size'], record['content_crc'] = start, content.nbytes, zlib.crc32(content.data)
        record['shape'][: len(shape)] = shape
        self._note(item, record)

    def void(self, item: int) -> None:
        """Take an item out, so that it is made anew."""
        self._note(item, np.zeros((), RECORD))

    def close(self) -> None:
        """Give the file of contents back; the next reading opens it again."""
        if self._map is not None:
            self._map.close()
        if self._data is not None:
            os.close(self._data)
        self._map = self._data = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict(_data=None, _map=None)

    def __del__(self) -> None:
        if getattr(self, '_data', None) is not None:
            self.close()

    def _note(self, item: int, record: np.ndarray) -> None:
        if record['size']:
            record['record_crc'] = _record_crc(record, item)
        index = os.open(self.index_path, WRITING, 0o644)
        try:
            _write(index, record.tobytes(), item * RECORD.itemsize)
        finally:
            os.close(index)
        self._records[item], self._intact[item], self._checked[item] = record, bool(record['size']), False

    def _mapped(self, stop: int) -> mmap.mmap | None:
        """The file of contents in memory; None where it is shorter than ``stop`` bytes."""
        if self._data is None:
            if not self.data_path.is_file():
                return None
            self._data = os.open(self.data_path, os.O_RDONLY | getattr(os, 'O_BINARY', 0))
        # Reading a map beyond the end of a file that was cut off would kill the process.
        length = os.fstat(self._data).st_size
        if length < stop:
            return None
        if self._map is None or len(self._map) < stop:
            self._map = mmap.mmap(self._data, length, access=mmap.ACCESS_READ)
        return self._map

    def _damaged(self, item: int, reason: str) -> DamagedItemError:
        return DamagedItemError(
            f'item {item} of {self.name} in the feature cache {self.folder} cannot be used: {reason}. Start again: '
            'what is absent or damaged is made anew first (with feature_cache.verify=True)'
        )


class ProcessLock:
    """Gives each item of a cache to one of the processes that fill it; the system releases what a killed one held.

    Args:
        folder: Of the cache, which exists.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / 'lock', WRITING, 0o644)

    def take(self, start: int, stop: int) -> bool:
        """Claim items ``start .. stop - 1``; False where another process has some of them."""
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, stop - start, start)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, start: int, stop: int) -> None:
        """Give claimed items back."""
        if fcntl is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, stop - start, start)

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Hold the end of the files of contents."""
        if fcntl is None:
            yield
            return
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, APPENDING)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, APPENDING)

    def close(self) -> None:
        """Give everything back."""
        os.close(self._file)


def _record_crc(record: np.ndarray, item: int) -> int:
    return zlib.crc32(record.tobytes()[:CHECKED_BYTES], item)


def _is_intact(record: np.ndarray, item: int) -> bool:
    return bool(record['size']) and _record_crc(record, item) == record['record_crc']


def _write(file: int, content: Any, offset: int) -> None:
    remaining = memoryview(content).cast('B')
    while remaining:
        if hasattr(os, 'pwrite'):
            written = os.pwrite(file, remaining, offset)
        else:  # Windows
            os.lseek(file, offset, os.SEEK_SET)
            written = os.write(file, remaining)
        remaining, offset = remaining[written:], offset + written
