"""Texts that messages are made of."""

from __future__ import annotations


def first_few(names: list[str], limit: int = 3) -> str:
    """The first names of a list and how many more there are, for error messages."""
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more
