"""What an index in the making keeps on disk: features and neighbours as they are computed, and how far both have come.

The folder ``<index>.partial`` holds ``features.f32``, ``neighbours.i32`` and ``manifest.json``. The manifest counts the
rows that are safely on disk; what a file holds beyond them, after a crash, is cut off.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout
from mmengine.logging import MMLogger

from omh_mmseg.utils.files import replaced_when_complete

COMMIT_SECONDS = 1.0
SUFFIX = '.partial'


class RowFile:
    """A matrix on disk that grows by rows and is read in blocks, so that it never stands in memory as a whole.

    Args:
        path: The file, made if absent.
        columns: Values per row.
        dtype: Type of the values.
        rows: How many rows of the file count; the rest is cut off.

    Raises:
        ValueError: The file holds fewer rows.
    """

    def __init__(self, path: Path, columns: int, dtype: str, rows: int = 0) -> None:
        self.path, self.columns, self.dtype, self.rows = path, columns, np.dtype(dtype), rows
        self._row_bytes = columns * self.dtype.itemsize
        self._file: BufferedRandom = open(path, 'r+b' if path.exists() else 'w+b')
        held = os.path.getsize(path)
        if held < rows * self._row_bytes:
            self._file.close()
            raise ValueError(f'{path} holds {held} bytes, {rows} rows of {self._row_bytes} bytes are expected')
        self._file.truncate(rows * self._row_bytes)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, rows: slice) -> np.ndarray:
        """A copy of consecutive rows."""
        start, stop, step = rows.indices(self.rows)
        if step != 1:
            raise ValueError(f'rows are read in blocks of consecutive ones, got the step {step}')
        block = np.empty((max(0, stop - start), self.columns), self.dtype)
        self._file.seek(start * self._row_bytes)
        if len(block) and self._file.readinto(block.data.cast('B')) != block.nbytes:
            raise OSError(f'{self.path} ends before row {stop}')
        return block

    def append(self, block: np.ndarray) -> None:
        """Add rows (R, columns) at the end."""
        if block.ndim != 2 or block.shape[1] != self.columns:
            raise ValueError(f'{self.path} takes rows of {self.columns} values, got the shape {block.shape}')
        self._file.seek(self.rows * self._row_bytes)
        self._file.write(np.ascontiguousarray(block, self.dtype).tobytes())
        self.rows += len(block)

    def sync(self) -> int:
        """Put everything safely on disk and return the number of rows."""
        rows = self.rows
        self._file.flush()
        os.fsync(self._file.fileno())
        return rows

    def close(self) -> None:
        """Close the file; what was not synced may be lost."""
        self._file.close()


class PartialIndex:
    """The work folder of one index; a context manager that other processes cannot enter meanwhile.

    A folder that belongs to another fingerprint, or is damaged, is emptied with a warning. Leaving the context, for
    whatever reason, keeps what was done.

    Args:
        index: Path of the index that is being made.
        fingerprint: What it is made from.
        items: N.

    Attributes:
        folder: The work folder.
        features: float32 (rows so far, C); None before :meth:`start_features`.
        neighbours: int32 (rows so far, k); None before :meth:`start_neighbours`.

    Raises:
        BlockingIOError: Another process is making this index.
    """

    def __init__(self, index: Path, fingerprint: dict[str, Any], items: int) -> None:
        self.folder = partial_folder(index)
        self.features: RowFile | None = None
        self.neighbours: RowFile | None = None
        self._manifest: dict[str, Any] = dict(fingerprint=fingerprint, items=items)
        self._last_commit = time.monotonic()
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> PartialIndex:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        try:
            self._resume()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._lock is not None:
                self.commit()
        finally:
            self._close()

    def start_features(self, channels: int) -> RowFile:
        """The file of features, with the rows of an earlier run if there was one."""
        if self.features is not None and self.features.columns != channels:
            self._restart(f'its features have {self.features.columns} channels instead of {channels}')
        if self.features is None:
            self.features = RowFile(self.folder / 'features.f32', channels, '<f4')
        return self.features

    def start_neighbours(self, columns: int, settings: dict[str, Any]) -> RowFile:
        """The file of neighbours, with the rows of an earlier run if that one searched with the same settings."""
        if self._manifest.get('search') != settings or (self.neighbours and self.neighbours.columns != columns):
            if self.neighbours is not None:
                self.neighbours.close()
                self.neighbours = None
            self._manifest['search'] = settings
        if self.neighbours is None:
            self.neighbours = RowFile(self.folder / 'neighbours.i32', columns, '<i4')
        return self.neighbours

    def commit(self, seconds: float = 0.0) -> None:
        """Put the rows on disk and count them, unless that was done less than ``seconds`` ago."""
        if time.monotonic() - self._last_commit < seconds:
            return
        for name, file in (('features', self.features), ('neighbours', self.neighbours)):
            if file is not None:
                self._manifest[name] = [file.sync(), file.columns]
            else:
                self._manifest.pop(name, None)
        with replaced_when_complete(self.folder / 'manifest.json') as manifest:
            manifest.write(json.dumps(self._manifest, indent=1, sort_keys=True).encode())
            manifest.flush()
            os.fsync(manifest.fileno())
        self._last_commit = time.monotonic()

    def remove(self) -> None:
        """Delete the folder: the index is complete."""
        lock, self._lock = self._lock, None
        self._close()
        _delete(self.folder, lock)

    def _resume(self) -> None:
        stored = _read_manifest(self.folder)
        if stored is None:
            return
        if any(stored.get(key) != self._manifest[key] for key in ('fingerprint', 'items')):
            self._restart('it was made from other images, weights or settings')
            return
        try:
            if 'features' in stored:
                rows, columns = stored['features']
                self.features = RowFile(self.folder / 'features.f32', columns, '<f4', rows)
            if 'neighbours' in stored:
                rows, columns = stored['neighbours']
                self.neighbours = RowFile(self.folder / 'neighbours.i32', columns, '<i4', rows)
                self._manifest['search'] = stored.get('search')
        except (ValueError, TypeError) as error:
            self._restart(f'it is damaged ({error})')

    def _restart(self, reason: str) -> None:
        MMLogger.get_current_instance().warning(f'{self.folder} is not continued but begun anew: {reason}')
        self._close_files()
        for name in ('manifest.json', 'features.f32', 'neighbours.i32'):
            (self.folder / name).unlink(missing_ok=True)
        self._manifest.pop('search', None)

    def _close_files(self) -> None:
        for file in (self.features, self.neighbours):
            if file is not None:
                file.close()
        self.features = self.neighbours = None

    def _close(self) -> None:
        self._close_files()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def partial_folder(index: Path) -> Path:
    """The work folder of an index."""
    return index.with_name(index.name + SUFFIX)


def partial_progress(index: Path, fingerprint: dict[str, Any]) -> tuple[int, int]:
    """How many items of an interrupted run have features and neighbours; zeros if nothing can be continued."""
    stored = _read_manifest(partial_folder(index)) or {}
    if stored.get('fingerprint') != fingerprint:
        return 0, 0
    return stored.get('features', [0])[0], stored.get('neighbours', [0])[0]


def discard_partial(index: Path) -> None:
    """Delete the work folder of an index that is complete, unless another process is at work in it."""
    folder = partial_folder(index)
    if not folder.is_dir():
        return
    try:
        lock = _locked(folder)
    except BlockingIOError:
        return
    _delete(folder, lock)


def _delete(folder: Path, lock: BaseFileLock | None) -> None:
    """Delete a work folder whose lock is held."""
    if lock is not None and os.name == 'nt':  # where a file that is open cannot be deleted
        lock.release()
    # A process that waits may have made its own lock file in there, or may be deleting it, too.
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        lock.release()


def _locked(folder: Path) -> BaseFileLock:
    """The lock of the folder, which is held until it is released or the process ends."""
    lock = FileLock(folder / 'lock')
    try:
        lock.acquire(blocking=False)
    except (Timeout, FileNotFoundError):  # the latter where another process deletes the folder right now
        raise BlockingIOError(
            f'another process is making this neighbour index in {folder}; wait for it, or end it and run this command '
            'again to continue from there'
        ) from None
    return lock


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / 'manifest.json').read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None
