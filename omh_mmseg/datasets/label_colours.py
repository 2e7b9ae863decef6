"""Labels in colours: which class each colour stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from omh_mmseg.structures.labels import IGNORED_LABEL

Colour = tuple[int, int, int]
IGNORED_NAME = 'ignored'
"""Key of a mapping of colours for those that stand for no class."""
UNKNOWN = -1
SHOWN = 5
_HEX = re.compile(r'#[0-9a-fA-F]{6}')


def parse_colour(value: Any) -> Colour:
    """A colour from ``[r, g, b]`` or ``'#rrggbb'``.

    Raises:
        ValueError: It is neither, or a number is outside 0..255.
    """
    if isinstance(value, str) and _HEX.fullmatch(value.strip()):
        code = int(value.strip()[1:], 16)
        return code >> 16, code >> 8 & 255, code & 255
    numbers = list(value) if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) else []
    whole = all(isinstance(number, (int, np.integer)) and not isinstance(number, bool) for number in numbers)
    if len(numbers) != 3 or not whole or min(numbers) < 0 or max(numbers) > 255:
        raise ValueError(f"a colour must be '#rrggbb' or [r, g, b] in 0..255, got {value!r}")
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def colour_table(colours: Any, classes: Sequence[str], source: str) -> dict[Colour, int]:
    """The class of each colour.

    Args:
        colours: The colour of each class in order, or class name -> colour with the key ``'ignored'`` for what belongs
            to no class. Several colours of one class stand in a list.
        classes: Names of the classes.
        source: What the colours come from, for messages.

    Returns:
        Class by colour; 255 for ignored ones.

    Raises:
        ValueError: Something that is no colour, more colours than classes, an unknown class, or a colour of two
            classes.
    """
    if isinstance(colours, Mapping):
        numbers = {IGNORED_NAME: IGNORED_LABEL} | {name: number for number, name in enumerate(classes)}
        unknown = [str(name) for name in colours if name not in numbers]
        if unknown:
            raise ValueError(
                f'{source} gives colours to {", ".join(unknown)}; the classes are {", ".join(classes)}, and '
                f'{IGNORED_NAME!r} is what belongs to none'
            )
        entries = [(numbers[name], value) for name, value in colours.items()]
    elif isinstance(colours, Sequence) and not isinstance(colours, str) and len(colours) <= len(classes):
        entries = list(enumerate(colours))
    else:
        what = f'{len(colours)} colours' if isinstance(colours, Sequence) and not isinstance(colours, str) else colours
        raise ValueError(
            f'{source} must be at most {len(classes)} RGB triples, one per class, or a mapping from class to colour; '
            f'got {what!r}'
        )
    table: dict[Colour, int] = {}
    for number, value in entries:
        for colour in _each(value, source):
            if table.setdefault(colour, number) != number:
                raise ValueError(f'{source} gives the colour {described(colour)} to two classes')
    return table


def _each(value: Any, source: str) -> Iterator[Colour]:
    several = isinstance(value, Sequence) and not isinstance(value, str) and not any(isinstance(v, int) for v in value)
    try:
        yield from map(parse_colour, value if several else [value])
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from error


def classes_of_colours(pixels: np.ndarray, table: Mapping[Colour, int]) -> np.ndarray:
    """Classes of pixels.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        table: Class by colour.

    Returns:
        int64 (H, W); `UNKNOWN` where the table lacks the colour.
    """
    known = sorted((_packed_colour(colour), number) for colour, number in table.items())
    codes, numbers = (np.array(column, dtype=np.int64) for column in zip(*known))
    packed = _packed(pixels)
    places = np.searchsorted(codes, packed).clip(max=len(codes) - 1)
    return np.where(codes[places] == packed, numbers[places], UNKNOWN)


def count_colours(pixels: np.ndarray) -> dict[Colour, int]:
    """Number of pixels of each colour of uint8 (..., 3), the most frequent first."""
    codes, counts = np.unique(_packed(pixels), return_counts=True)
    order = np.argsort(-counts, kind='stable')
    return {(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255): int(n) for c, n in zip(codes[order], counts[order])}


def described(colour: Colour) -> str:
    """``#0a0b0c (10, 11, 12)``."""
    return '#{:02x}{:02x}{:02x} '.format(*colour) + str(tuple(map(int, colour)))


def unknown_colours(counts: Mapping[Colour, int]) -> str:
    """What a message says of colours that stand for no class, with their numbers of pixels."""
    shown = ', '.join(f'{described(colour)} in {number} pixels' for colour, number in [*counts.items()][:SHOWN])
    more = f' and {len(counts) - SHOWN} more' if len(counts) > SHOWN else ''
    what = 'colour that stands' if len(counts) == 1 else 'colours that stand'
    return f'{len(counts)} {what} for no class, {shown}{more}'


def known_colours(table: Mapping[Colour, int]) -> str:
    """What a message says of those that do."""
    return f'known are {", ".join(described(colour) for colour in [*table][:SHOWN])}' + ', ...' * (len(table) > SHOWN)


def _packed(pixels: np.ndarray) -> np.ndarray:
    wide = pixels.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _packed_colour(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]
