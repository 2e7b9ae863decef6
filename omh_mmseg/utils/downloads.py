"""Files at addresses: downloaded once, kept by their address, and verified whenever they are used."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch
from filelock import BaseFileLock, FileLock
from mmengine.logging import MMLogger

from omh_mmseg.utils.files import replaced_when_complete, write_text
from omh_mmseg.utils.progress import progress_bar

SCHEMES = ('http://', 'https://')
CHUNK = 1 << 20
TIMEOUT = 60
"""Seconds without a byte after which a server counts as gone."""
GIVEN = re.compile(r'#sha256=(.*)$')
NAMED = re.compile(r'-([0-9a-f]{8,64})(?:\.[A-Za-z]\w*)+$')
"""The end of a name by torch's convention, ``model-<first digits of the SHA-256>.pth``."""
DATE = re.compile(r'20\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])')
REMEDY = (
    'run the command again to download it anew, or get the file by other means and give its path in place of the '
    'address (of a backbone: --cfg-options model.backbone.checkpoint=/path/to/file.pth)'
)
UNREADABLE = (EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile)
"""What readers raise at a file that is not whole, or not one of theirs."""

Content = TypeVar('Content')


class DownloadError(ConnectionError):
    """A file could not be had from its address, or is not the one that was expected."""


class DigestError(ValueError):
    """A local file is not the one that was asked for."""


def is_address(name: str) -> bool:
    """Whether a name is that of a file to download."""
    return name.startswith(SCHEMES)


def split_digest(name: str) -> tuple[str, str | None]:
    """Part ``#sha256=<8 to 64 hexadecimal digits>`` from the end of a path or address, as pip writes it.

    Returns:
        The name without it, and the beginning of the file's SHA-256; None where it is not given.

    Raises:
        ValueError: The digits are no digits, or too few or many.
    """
    given = GIVEN.search(name)
    if given is None:
        return name, None
    digest = given[1].lower()
    if not re.fullmatch('[0-9a-f]{8,64}', digest):
        raise ValueError(f'{name}: sha256 must be 8 to 64 hexadecimal digits; got {given[1]!r}')
    return name[: given.start()], digest


def check_digest(path: Path, digest: str) -> None:
    """Compare a file with the beginning of its SHA-256.

    Raises:
        DigestError: It is another file.
    """
    found = _sha256(path)
    if not found.startswith(digest):
        raise DigestError(
            f'{path} has the SHA-256 {found}, but one that begins with {digest} was asked for: it is another file, or '
            'damaged. Get it again, or correct or leave out what follows #sha256= if this file is meant'
        )


def read_address(address: str, read: Callable[[Path], Content]) -> Content:
    """Read the file at an address, from the cache in torch's hub folder or, the first time, from the network.

    A file is accepted if its SHA-256 begins with the digits after ``#sha256=`` or, without these, with those at the end
    of its name (``-3b2dc3af.pth``); where neither is known, if it has the length that the server announces. Later uses
    compare it with the SHA-256 noted at the download. What does not pass, or cannot be read without a digest having
    vouched for it, is removed. Of several processes one downloads, and the others wait for it.

    Args:
        address: Of ``http`` or ``https``; may end in ``#sha256=<digits>``.
        read: What is done with the file.

    Returns:
        What ``read`` returns.

    Raises:
        DownloadError: The server cannot be reached, refuses, breaks off, or sends another file; names the address, what
            was expected and seen, and a remedy.
        ValueError: See `split_digest`.
        PermissionError: The cache cannot be written.
    """
    url, given = split_digest(address)
    digest = given or _named_digest(url)
    path = cached_path(url)
    if not _is_sound(path, digest):
        lock = _locked(path, url)
        try:
            # Another process may have brought it meanwhile.
            if not _is_sound(path, digest):
                _discard(path, url)
                _download(url, path, digest)
        finally:
            lock.release()
    try:
        return read(path)
    except UNREADABLE:
        if digest is None:
            _discard(path, url)
        raise


def cached_path(url: str) -> Path:
    """Where the file of an address is kept: its own name, in a folder named after the whole address."""
    name = Path(urlparse(url).path).name
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(torch.hub.get_dir()) / 'checkpoints' / key / (name if name.strip('.') else 'file')


def _named_digest(url: str) -> str | None:
    named = NAMED.search(urlparse(url).path)
    # Eight digits that are a day of this century are more likely that than a digest.
    return None if named is None or DATE.fullmatch(named[1]) else named[1]


def _locked(path: Path, url: str) -> BaseFileLock:
    """The lock of a cached file, held."""
    lock = FileLock(path.with_name(f'.{path.name}.lock'))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise PermissionError(
            f'{url} cannot be kept in {path.parent} ({error.strerror or error}); set the environment variable '
            'TORCH_HOME to a folder that can be written'
        ) from error
    return lock


def _record(path: Path) -> Path:
    return path.with_name(f'{path.name}.json')


def _is_sound(path: Path, digest: str | None) -> bool:
    """Whether a file is there that is still what was downloaded, and what is asked for."""
    try:
        noted = json.loads(_record(path).read_text())
        if path.stat().st_size != noted['size']:
            return False
        found = _sha256(path)
        return found == noted['sha256'] and found.startswith(digest or '')
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _discard(path: Path, url: str) -> None:
    for file in (_record(path), path):
        with suppress(FileNotFoundError):
            file.unlink()
            if file == path:
                MMLogger.get_current_instance().warning(f'the damaged file of {url} was removed: {path}')


def _download(url: str, path: Path, digest: str | None) -> None:
    MMLogger.get_current_instance().info(f'downloading {url} to {path}')
    sha256, size = hashlib.sha256(), 0
    try:
        request = Request(url, headers={'User-Agent': 'omh_mmseg'})
        with urlopen(request, timeout=TIMEOUT) as answer, replaced_when_complete(path) as file:
            announced = answer.headers.get('Content-Length')
            length = int(announced) if announced and announced.isdigit() else None
            with progress_bar(True) as bar:
                task = bar.add_task(path.name, total=length)
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    sha256.update(chunk)
                    size += len(chunk)
                    bar.advance(task, len(chunk))
            if length is not None and size != length:
                raise DownloadError(f'the connection broke off after {size} of {length} bytes')
            if digest is not None and not sha256.hexdigest().startswith(digest):
                raise DownloadError(
                    f'its SHA-256 should begin with {digest} and is {sha256.hexdigest()} ({size} bytes): it is damaged '
                    'or another file'
                )
    except (OSError, HTTPException) as error:
        reason = ' '.join(f'{error}'.split()) or type(error).__name__
        raise DownloadError(f'Cannot download {url}: {reason}. Nothing of it was kept; {REMEDY}.') from error
    write_text(_record(path), f'{json.dumps(dict(address=url, size=size, sha256=sha256.hexdigest()))}\n')
    if digest is None and length is None:
        MMLogger.get_current_instance().warning(
            f'neither a digest nor a length of {url} is known, so that only its reading can tell whether it is whole'
        )


def _sha256(path: Path) -> str:
    sha256 = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
    return sha256.hexdigest()
