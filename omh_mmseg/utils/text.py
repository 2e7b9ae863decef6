"""Texts that messages are made of."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_FROM_WORKER = re.compile(r'Caught \w+ in DataLoader worker process \d+\.\n')
_LAST_ERROR = re.compile(r'^[\w.]+: ', re.MULTILINE)


def first_few(names: list[str], limit: int = 3) -> str:
    """The first names of a list and how many more there are, for error messages."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def message_of(error: BaseException) -> str:
    """What an exception says; of one from a data loader's worker, without the traceback that torch puts there."""
    text = str(error)
    if not _FROM_WORKER.match(text):
        return text
    *_, last = _LAST_ERROR.finditer(text)
    return text[last.end() :].strip()


def did_you_mean(name: str, known: Iterable[str], count: int = 3) -> str:
    """``'; did you mean ...?'`` with the names most like one, for error messages; empty where none is alike."""
    close = difflib.get_close_matches(name, list(known), n=count)
    return f'; did you mean {" or ".join(close)}?' if close else ''
