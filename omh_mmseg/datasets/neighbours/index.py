"""The index of nearest neighbours: how it is stored and what it belongs to.

An index file is an npz with ``neighbours``, int32 (N, k), column 0 being the item itself, and ``fingerprint``, a JSON
text that says which images, pipeline, backbone, weights, normalisation and, if any, channel dropout it was computed
from. The name of the file may tell indices apart (:func:`resolve_index_path`), but whoever uses one compares
fingerprints (:func:`compare_fingerprints`).
"""

from __future__ import annotations

import glob
import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from omh_mmseg.datasets.fingerprint import DATASET_PARTS, DROPOUT_PART, MODEL_PARTS
from omh_mmseg.datasets.neighbours.search import Rows
from omh_mmseg.utils.commands import suggested_command

COMMAND = 'prepare.py neighbours'
WRITTEN_ROWS = 65536
PLACEHOLDER = '{fingerprint}'
DIGITS = 8


@dataclass
class NeighbourIndex:
    """An index in memory.

    Attributes:
        neighbours: int32 (N, k), column 0 the item itself.
        fingerprint: What it was computed from.
    """

    neighbours: np.ndarray
    fingerprint: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> NeighbourIndex:
        """Read an index file.

        Raises:
            FileNotFoundError: There is no such file; the message holds the command that makes it.
            ValueError: The file is damaged or not an index.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(_absent(path))
        try:
            with np.load(path) as arrays:
                neighbours, fingerprint = arrays['neighbours'], json.loads(str(arrays['fingerprint']))
            _check_neighbours(neighbours)
            if not isinstance(fingerprint, dict):
                raise ValueError(f'fingerprint is {fingerprint!r}, and must be a mapping')
        except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f'{path} is not a neighbour index or is damaged ({type(error).__name__}: {error}). Make it anew with\n'
                f'    {suggested_command(COMMAND, "--force")}'
            ) from error
        return cls(neighbours, fingerprint)


def _check_neighbours(neighbours: Any) -> None:
    """Raise ValueError, naming the row, if these are not N rows of the item itself and other items."""
    if not isinstance(neighbours, np.ndarray) or neighbours.ndim != 2 or neighbours.dtype.kind not in 'iu':
        got = f'{getattr(neighbours, "dtype", type(neighbours))} {getattr(neighbours, "shape", "")}'
        raise ValueError(f'`neighbours` must be whole numbers (N, k) with the item itself in column 0, got {got}')
    items, columns = neighbours.shape
    if items < 1 or columns < 2:
        raise ValueError(f'`neighbours` is {neighbours.shape}: no item beside each other one')
    own = np.arange(items)
    for wrong, what in (
        ((neighbours < 0) | (neighbours >= items), f'names an item outside 0..{items - 1}'),
        ((neighbours != own[:, None]) & (np.arange(columns) == 0), 'has another item than its own in column 0'),
        ((neighbours == own[:, None]) & (np.arange(columns) > 0), 'has its own item among its neighbours'),
    ):
        rows = wrong.any(1).nonzero()[0]
        if len(rows):
            row = int(rows[0])
            raise ValueError(
                f'row {row} of `neighbours` {what}: {neighbours[row].tolist()} ({len(rows)} of {items} rows do)'
            )


def write_index(file: BinaryIO, neighbours: Rows, fingerprint: dict[str, Any]) -> None:
    """Write the npz to an open file, a block of rows at a time.

    Args:
        file: Open for writing.
        neighbours: Whole numbers (N, k), in memory or as a file of rows.
        fingerprint: What the index was computed from.
    """
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        with archive.open('neighbours.npy', 'w', force_zip64=True) as entry:
            header = dict(descr='<i4', fortran_order=False, shape=tuple(neighbours.shape))
            np.lib.format.write_array_header_1_0(entry, header)
            for start in range(0, neighbours.shape[0], WRITTEN_ROWS):
                block = neighbours[start : start + WRITTEN_ROWS]
                entry.write(np.ascontiguousarray(block, '<i4').tobytes())
        with archive.open('fingerprint.npy', 'w') as entry:
            np.lib.format.write_array(entry, np.array(json.dumps(fingerprint, sort_keys=True)))


def resolve_index_path(index: str | Path, fingerprint: dict[str, Any]) -> Path:
    """Fill in ``{fingerprint}`` in an index path: eight digits for the images and eight for the model.

    The first stand for image list and pipeline, the others for backbone, weights and normalisation, so that another
    folder, resolution or backbone has another file.

    Args:
        index: The path as the config gives it.
        fingerprint: From :func:`dataset_fingerprint` and :func:`model_fingerprint`.
    """
    digits = '-'.join(_digits(fingerprint, parts) for parts in (DATASET_PARTS, MODEL_PARTS))
    return Path(str(index).replace(PLACEHOLDER, digits))


def find_index(index: str | Path, fingerprint: dict[str, Any]) -> Path:
    """An index of some images for programs without a model, to which the neighbours of any backbone will do.

    Args:
        index: The path as the config gives it.
        fingerprint: From :func:`dataset_fingerprint`.

    Returns:
        The path, where ``index`` has ``{fingerprint}`` that of the newest file of these images.

    Raises:
        FileNotFoundError: There is none; the message holds the command that makes it.
    """
    start, placeholder, end = str(index).partition(PLACEHOLDER)
    if not placeholder:
        return Path(index)
    start += f'{_digits(fingerprint, DATASET_PARTS)}-'
    found = [Path(path) for path in glob.glob(f'{glob.escape(start)}{"?" * DIGITS}{glob.escape(end)}')]
    if not found:
        raise FileNotFoundError(_absent(f'{start}*{end}'))
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def _digits(fingerprint: dict[str, Any], names: tuple[str, ...]) -> str:
    parts = json.dumps({part: fingerprint[part] for part in names}, sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()[:DIGITS]


def _absent(path: str | Path) -> str:
    return f'there is no neighbour index {path}. Make it with\n    {suggested_command(COMMAND)}'


def command_to_remake(fingerprint: dict[str, Any], config: str | None = None) -> str:
    """The command that replaces an index by one that is made in the same way.

    Args:
        fingerprint: Of the index.
        config: Config file of the run, where it is known; see :func:`omh_mmseg.utils.commands.suggested_command`.
    """
    dropout = fingerprint.get(DROPOUT_PART)
    flags = ['--train-mode-dropout', str(dropout['probability'])] if dropout else []
    flags += ['--dropout-seed', str(dropout['seed'])] if dropout and dropout['seed'] else []
    return suggested_command(COMMAND, '--force', *flags, config=config)
