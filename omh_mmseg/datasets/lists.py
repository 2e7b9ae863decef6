"""Lists of images: which image each line names."""

from __future__ import annotations

import os
import posixpath
import unicodedata
import warnings
from collections.abc import Iterator, Mapping

from PIL import Image

from omh_mmseg.utils.text import first_few
from omh_mmseg.utils.text_files import read_text

COMMENT = '#'
ENDINGS = {*Image.registered_extensions(), '.mat'}


def read_list(path: str | os.PathLike[str], images: Mapping[str, str], folder: str | os.PathLike[str]) -> list[str]:
    """The images that a list names, one per line.

    A line names an image by its id or by its file, with or without the ending, from the image folder or from a folder
    above it, with slashes or backslashes. Blank lines do not count, nor do lines that begin with ``#`` and name no
    image.

    Args:
        path: The list, in UTF-8 or UTF-16.
        images: Paths of the images by id.
        folder: The folder of images, in which the ids are unique.

    Returns:
        Ids in the order of the list, each once; a warning tells of those that are listed again.

    Raises:
        FileNotFoundError: Lines that name no image; the message has their numbers.
        ValueError: No line names an image, a line fits several, or the encoding is another one.
    """
    known = _names(images, folder)
    above = _folders_above(folder)
    first: dict[str, int] = {}
    absent: list[tuple[int, str]] = []
    again: list[str] = []
    lines = 0
    for number, line in enumerate(read_text(path).split('\n'), 1):
        found = _find(line, known, above)
        if not found and (not line.strip() or line.lstrip().startswith(COMMENT)):
            continue
        lines += 1
        if not found:
            absent.append((number, line.strip()))
        elif len(found) > 1:
            raise ValueError(f'{path}, line {number}: {line.strip()!r} fits several images: {first_few(sorted(found))}')
        elif (name := found.pop()) in first:
            again.append(f'{name} (lines {first[name]} and {number})')
        else:
            first[name] = number
    if absent:
        names, numbers = [name for _, name in absent], [str(number) for number, _ in absent]
        raise FileNotFoundError(
            f'{path} lists {len(absent)} images (of {lines}) that are not in {folder}: {first_few(names)} (line '
            f'{first_few(numbers)}){_hint(names[0], images)}'
        )
    if not first:
        raise ValueError(f'the list {path} is empty: none of its lines names an image')
    if again:
        warnings.warn(f'{path} lists images more than once, they are taken once: {first_few(again)}', stacklevel=2)
    return list(first)


def _names(images: Mapping[str, str], folder: str | os.PathLike[str]) -> dict[str, set[str]]:
    """Ids by each name that an image may have: its id, and its file with and without the ending."""
    names: dict[str, set[str]] = {}
    top = os.path.join(folder, '')
    for key, path in images.items():
        file = (path[len(top) :] if path.startswith(top) else os.path.relpath(path, folder)).replace(os.sep, '/')
        for name in {key.replace(os.sep, '/'), file, posixpath.splitext(file)[0]}:
            names.setdefault(_composed(name), set()).add(key)
    return names


def _folders_above(folder: str | os.PathLike[str]) -> list[str]:
    """What a path may begin with that leads to the folder of images: ``train/``, ``images/train/``, ... up to ``/``."""
    parts = _composed(os.path.abspath(folder).replace(os.sep, '/')).split('/')
    return ['/'.join(parts[-count:]) + '/' for count in range(1, len(parts) + 1)]


def _find(line: str, known: Mapping[str, set[str]], above: list[str]) -> set[str]:
    for name in _readings(line, above):
        stem, ending = posixpath.splitext(name)
        found = known.get(name) or (known.get(stem) if ending.lower() in ENDINGS else None)
        if found:
            return set(found)
    return set()


def _readings(line: str, above: list[str]) -> Iterator[str]:
    """What a line may mean, the most literal first: as it stands, as a path from the folder, as one from above it."""
    for text in dict.fromkeys((line, line.strip(), line.strip().replace('\\', '/'))):
        if text.strip():
            path = posixpath.normpath(_composed(text))
            yield path
            yield from (path[len(start) :] for start in above if path.startswith(start))


def _composed(name: str) -> str:
    """Letters with accents as one sign each: some systems store them as two, and lists travel."""
    return unicodedata.normalize('NFC', name)


def _hint(name: str, images: Mapping[str, str]) -> str:
    stem = posixpath.splitext(posixpath.basename(name.replace('\\', '/')))[0]
    near = [key for key in images if posixpath.basename(key.replace(os.sep, '/')) == stem]
    return f'. Did you mean {first_few(near)}?' if near else ''
