"""Names and colours of a folder's classes: from the config, from a file, or by numbering."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omh_mmseg.datasets.base import numbered_palette
from omh_mmseg.datasets.label_colours import parse_colour
from omh_mmseg.utils.text_files import element_lines, parse_json, read_text

DEFAULT_FILE = 'classes.json'
_COLOUR = r'(?P<colour>#[0-9a-fA-F]{6}|-?\d+[\s,;]+-?\d+[\s,;]+-?\d+)'
_COLOUR_FIRST = re.compile(rf'{_COLOUR}[\s,;:]+(?P<name>\S.*)')
_COLOUR_LAST = re.compile(rf'(?P<name>.*?\S)[\s,;:]+{_COLOUR}')
_TABLE_HEAD = re.compile(r'(class|label|name)\w*[\s,;]+r(ed)?[\s,;]+g(reen)?[\s,;]+b(lue)?', re.IGNORECASE)


@dataclass(frozen=True)
class ClassFile:
    """What a file says of classes.

    Attributes:
        classes: Their names.
        palette: RGB of the first classes, empty where the file has no colours.
        label_colours: Colours of the label files where they are not those of ``palette``, see `colour_table`.
    """

    classes: list[str]
    palette: list[list[int]]
    label_colours: Any = None


@dataclass(frozen=True)
class ClassNames:
    """Complete classes of a data set.

    Attributes:
        metainfo: With ``classes`` and a ``palette`` of as many colours.
        colours: The colours that somebody chose, for `colour_table`; None where the palette is numbered alone.
        source: Where they come from, for messages.
    """

    metainfo: dict[str, Any]
    colours: Any
    source: str


def read_class_file(path: str | os.PathLike[str]) -> ClassFile:
    """Read class names, and their colours where the file has them.

    Either JSON, ``{"classes": [...], "palette": [[r, g, b], ...], "label_colours": {...}}`` with the names alone
    required, or text with a class per line: ``road``, ``road 128 64 128``, ``128 64 128 road``, ``road,128,64,128``,
    ``road #804080``, or CVAT's ``road:128,64,128::``. Lines that begin with ``#`` and no colour are comments.

    Raises:
        ValueError: It holds something else, a name twice or a wrong colour; the message has file and line.
    """
    text = read_text(path)
    return _from_json(text, path) if text.lstrip()[:1] in ('{', '[') else _from_lines(text, path)


def complete_classes(
    metainfo: Mapping[str, Any], data_root: str, classes_file: str | None, num_classes: int | None
) -> ClassNames:
    """Names and palette for all classes of a folder.

    Args:
        metainfo: Of the config; its ``classes`` go before those of a file.
        data_root: The folder, in which ``classes.json`` is looked for.
        classes_file: Another file, absolute or below ``data_root``.
        num_classes: Their number; further ones are numbered.

    Raises:
        FileNotFoundError: ``classes_file`` is absent.
        ValueError: The number is unknown or too small, names are there twice, or colours are wrong.
    """
    metainfo, source = dict(metainfo), 'metainfo'
    label_colours = None
    if metainfo.get('classes') is None:
        path = Path(data_root, classes_file or DEFAULT_FILE)
        source = str(path)
        if path.is_file():
            found = read_class_file(path)
            metainfo |= dict(classes=found.classes, palette=found.palette or metainfo.get('palette'))
            label_colours = found.label_colours
        elif classes_file is not None:
            raise FileNotFoundError(f'classes_file {str(path)!r} does not exist')
        elif num_classes is None:
            raise ValueError(
                f'the number of classes is unknown: give num_classes, metainfo=dict(classes=[...]) or {path}'
            )
    classes = list(metainfo.get('classes') or [])
    if num_classes is not None:
        if num_classes < max(len(classes), 1):
            raise ValueError(f'num_classes={num_classes}, but {source} names {len(classes)} classes; it may be larger')
        if classes and num_classes > len(classes):
            warnings.warn(
                f'num_classes is {num_classes}, but {source} names {len(classes)} classes: the others are numbered',
                stacklevel=2,
            )
        classes += [f'class_{index}' for index in range(len(classes), num_classes)]
    if len(set(classes)) != len(classes):
        raise ValueError(f'{source} names a class twice: {sorted({c for c in classes if classes.count(c) > 1})}')
    palette = _checked_palette(metainfo.get('palette') or [], len(classes), source)
    complete = palette + numbered_palette(len(classes))[len(palette) :]
    return ClassNames(
        metainfo | dict(classes=tuple(classes), palette=complete), label_colours or palette or None, source
    )


def _checked_palette(palette: Sequence[Any], limit: int, source: str) -> list[list[int]]:
    try:
        colours = [list(parse_colour(colour)) for colour in palette]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'the palette of {source} must be at most {limit} RGB triples, one per class: {error}'
        ) from error
    if len(colours) > limit:
        raise ValueError(f'the palette of {source} must be at most {limit} RGB triples, one per class, got {colours}')
    return colours


def _from_json(text: str, path: str | os.PathLike[str]) -> ClassFile:
    content = parse_json(text, path)
    classes = content.get('classes') if isinstance(content, dict) else None
    palette = content.get('palette') or [] if isinstance(content, dict) else []
    if not isinstance(classes, list) or not classes or not isinstance(palette, list):
        raise ValueError(f'{path} must be {{"classes": [...], "palette": [[r, g, b], ...]}}, the palette optional')
    lines = element_lines(text, 'classes')
    for number, name in enumerate(classes):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f'{path}, line {lines[number]}: a class must have a name, got {name!r}')
    _check_names(classes, lines, path)
    colours = _colours(palette, element_lines(text, 'palette'), path)
    if len(colours) > len(classes):
        raise ValueError(f'{path}: the palette has {len(colours)} colours for {len(classes)} classes')
    return ClassFile(classes, colours, content.get('label_colours'))


def _from_lines(text: str, path: str | os.PathLike[str]) -> ClassFile:
    classes: list[str] = []
    palette: list[Any] = []
    lines: list[int] = []
    bare: list[int] = []
    for number, line in enumerate(text.split('\n'), 1):
        entry = line.strip().rstrip(',;:').strip()
        found = _COLOUR_FIRST.fullmatch(entry) or _COLOUR_LAST.fullmatch(entry)
        if not entry or (entry.startswith('#') and not found) or (not classes and _TABLE_HEAD.fullmatch(entry)):
            continue
        classes.append(found['name'].strip() if found else entry)
        lines.append(number)
        if found:
            colour = found['colour']
            palette.append(colour if colour.startswith('#') else [int(part) for part in re.split(r'[\s,;]+', colour)])
        else:
            bare.append(number)
    if not classes:
        raise ValueError(f'{path} names no class: it has no line with a name')
    if palette and bare:
        raise ValueError(f'{path}, line {bare[0]}: {classes[lines.index(bare[0])]!r} has no colour, but others have')
    _check_names(classes, lines, path)
    return ClassFile(classes, _colours(palette, lines, path))


def _check_names(classes: Sequence[str], lines: Sequence[int], path: str | os.PathLike[str]) -> None:
    first: dict[str, int] = {}
    for name, line in zip(classes, lines):
        if name in first:
            raise ValueError(f'{path}, line {line}: the class {name!r} is there already, in line {first[name]}')
        first[name] = line


def _colours(palette: Sequence[Any], lines: Sequence[int], path: str | os.PathLike[str]) -> list[list[int]]:
    colours = []
    for colour, line in zip(palette, lines):
        try:
            colours.append(list(parse_colour(colour)))
        except ValueError as error:
            raise ValueError(f'{path}, line {line}: {error}') from error
    return colours
