"""Text files that people wrote, in whatever form their editor or shell left them."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# That of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, 'utf-8'),
    (codecs.BOM_UTF32_LE, 'utf-32-le'),
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)


def read_text(path: str | os.PathLike[str]) -> str:
    r"""A text file in UTF-8, or in UTF-16 as PowerShell writes it, with a byte order mark or without.

    Returns:
        The text with ``\n`` as the end of each line.

    Raises:
        ValueError: It is in another encoding; the message names the line.
    """
    content = Path(path).read_bytes()
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b'', 'utf-8'))
    content = content[len(mark) :]
    if not mark and b'\0' in content:
        # Names and line ends are mostly ASCII, whose upper byte is zero.
        encoding = 'utf-16-le' if content[1::2].count(0) >= content[::2].count(0) else 'utf-16-be'
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, 'replace')
        raise ValueError(
            f'{path}, line {before.count(chr(10)) + 1}: this is not {encoding.upper()} ({error.reason}); save the '
            'file as UTF-8'
        ) from error
    return re.sub(r'\r\n?', '\n', text)


def parse_json(text: str, path: str | os.PathLike[str]) -> Any:
    """JSON of a file's text.

    Raises:
        ValueError: It is not JSON, or an object has a key twice; the message names file and line.
    """

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                last = text.rfind(json.dumps(key, ensure_ascii=False))
                raise ValueError(f'{path}, line {line_at(text, last)}: the key {key!r} is there twice')
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].lstrip()
        comma = text[: error.pos].rstrip().endswith(',') or rest.startswith(',')
        hint = '; JSON has no comma before a closing bracket' if comma and rest.lstrip(', \n')[:1] in (']', '}') else ''
        raise ValueError(f'{path} is not JSON: line {error.lineno}, {error.msg}{hint}') from error


def element_lines(text: str, key: str) -> list[int]:
    """The line of each element of the array at a key of JSON that `parse_json` has read; empty without one."""
    found = re.search(rf'{re.escape(json.dumps(key))}\s*:\s*\[', text)
    if found is None:
        return []
    lines: list[int] = []
    position = found.end()
    while True:
        position += len(text[position:]) - len(text[position:].lstrip(', \t\n'))
        if text[position] == ']':
            return lines
        lines.append(line_at(text, position))
        _, position = json.JSONDecoder().raw_decode(text, position)


def line_at(text: str, position: int) -> int:
    """Number of the line of a position, from 1."""
    return text.count('\n', 0, position) + 1
