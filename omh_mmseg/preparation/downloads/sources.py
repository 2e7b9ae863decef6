"""What the user downloaded: files in folders and in zip archives, found by the end of their path."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from omh_mmseg.utils.text import first_few

DAMAGED = (OSError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged file raises: Pillow, zipfile and zlib have ways of their own."""
Entries = dict[str, dict[tuple[str, ...], 'Entry']]


@dataclass(frozen=True)
class Entry:
    """One file of the user's.

    Attributes:
        path: Absolute path with slashes; in an archive, that of the archive and then the member's.
        size: In bytes, uncompressed.
        archive: The open archive that holds the file, None for a file on disk.
        member: Its name in the archive.
    """

    path: str
    size: int
    archive: zipfile.ZipFile | None = None
    member: str = ''

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file for reading, which may fail anywhere inside the context; from several threads at once too.

        Raises:
            OSError: The file is damaged, or was not copied or downloaded as a whole.
        """
        try:
            with open(self.path, 'rb') if self.archive is None else self.archive.open(self.member) as file:
                yield file
        except DAMAGED as error:
            # Errors of the operating system, such as a full disk, say which file they are about.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            where = 'it' if self.archive is None else 'the archive'
            reason = f'{type(error).__name__}: {" ".join(str(error).split())}'
            raise OSError(f'{self.path} is damaged ({reason}); download {where} again') from error


def collect(sources: Iterable[str | os.PathLike[str]], patterns: Mapping[str, str]) -> Entries:
    """Find files by the end of their path, in folders, in the zip archives inside them, and in archives given directly.

    Args:
        sources: Folders and archives. Where two hold the same file, the first one counts, and files on disk count
            before the archives of the same folder.
        patterns: Regular expressions by kind, for paths with slashes; their groups identify a file.

    Returns:
        By kind: the files by the groups of the pattern.

    Raises:
        FileNotFoundError: A source does not exist.
        ValueError: A source is a file but not a zip archive, an archive is damaged; or files are empty.
    """
    compiled = {kind: re.compile(rf'(?:^|/){pattern}$') for kind, pattern in patterns.items()}
    entries_of: Entries = {kind: {} for kind in patterns}
    for source in sources:
        for entry in _entries(Path(source)):
            for kind, pattern in compiled.items():
                match = pattern.search(entry.path)
                if match:
                    entries_of[kind].setdefault(match.groups(), entry)
    found = [entry.path for entries in entries_of.values() for entry in entries.values() if not entry.size]
    empty = [path for path in found if not path.endswith('.txt')]
    if empty:
        raise ValueError(
            f'{len(empty)} files are empty, as a full disk or an interrupted download leaves them: {first_few(empty)}; '
            'get them again'
        )
    return entries_of


def _entries(source: Path) -> Iterator[Entry]:
    if source.is_file():
        yield from _members(source.absolute())
        return
    if not source.is_dir():
        raise FileNotFoundError(f'the source {str(source)!r} is neither a folder nor a zip archive')
    archives = []
    for folder, subfolders, names in os.walk(source.absolute(), followlinks=True):
        subfolders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.lower().endswith('.zip'):
                archives.append(Path(path))
            elif os.path.exists(path):
                yield Entry(path.replace(os.sep, '/'), os.path.getsize(path))
    for archive in archives:
        yield from _members(archive)


def _members(path: Path) -> Iterator[Entry]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f'{path} is not a complete zip archive ({error}): download it again, or move it out of the sources. Other '
            'kinds of archives must be extracted first'
        ) from error
    top = str(path).replace(os.sep, '/')
    for info in archive.infolist():
        if not info.is_dir():
            yield Entry(f'{top}/{info.filename}', info.file_size, archive, info.filename)


def probe_labels(labels: Iterable[Entry], accepted: Iterable[int], probed: int = 4) -> None:
    """Look at a few label images, so that the wrong download is noticed before anything is written.

    Args:
        labels: The label files.
        accepted: Values that they may hold.
        probed: How many to look at, evenly spread.

    Raises:
        ValueError: A label cannot be read, has several channels, or holds another value.
    """
    entries, allowed = list(labels), sorted(set(accepted))
    for entry in entries[:: max(1, len(entries) // probed)][:probed]:
        try:
            with entry.open() as file, Image.open(file) as image:
                label = np.array(image)
        except (OSError, SyntaxError, zipfile.BadZipFile) as error:
            raise ValueError(f'{entry.path}: the label cannot be read ({type(error).__name__}: {error})') from error
        wrong = np.setdiff1d(label, allowed)
        if label.ndim != 2 or len(wrong):
            raise ValueError(
                f'{entry.path}: labels have one channel with values among {allowed[0]}..{max(allowed[:-1])} and '
                f'{allowed[-1]}; this one has the shape {label.shape} and holds {wrong[:5].tolist()} besides. Is it '
                'another kind of label?'
            )
