"""A look at some labels of a folder before the run: how they are read, and whether they can mean what they say."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omh_mmseg.datasets.label_colours import Colour, described
from omh_mmseg.datasets.label_files import (
    CHANNELS,
    PALETTES,
    class_numbers,
    open_label_of,
    palette_conflict,
    used_colours,
)
from omh_mmseg.datasets.transforms.loading import LabelValueError, class_of_number, read_label
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.text import first_few

PROBED_LABELS = 16
"""About how many labels of a folder are looked at."""


def probe_labels(items: Sequence[Mapping[str, Any]], choose: bool) -> dict[str, Any]:
    """Look at a few labels.

    Args:
        items: Of some images, evenly spread, as `read_label` takes them.
        choose: Whether palettes may be read by number or by colour, whichever they mean; False where an option says.

    Returns:
        ``label_reading`` and ``label_palette`` for `read_label`.

    Raises:
        ValueError: A label cannot be read, or labels cannot mean what they say; the message has the remedy.
    """
    reading = _chosen_reading(items) if choose else {}
    probed = [{**item, **reading} for item in items]
    values: set[int] = set()
    for item in probed:
        try:
            values |= set(np.unique(read_label(item)).tolist())
        except LabelValueError as error:
            raise LabelValueError(f'{error}{_suggestion(probed)}') from error
    _check_values(values, probed)
    return reading


def _chosen_reading(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By colour where palettes order the colours otherwise than the classes are, by number where both agree.

    A number of a palette is a class number only if it has one colour in all files. Where the colours of the classes are
    known, it must also have that of its class, unless the palettes have other colours altogether.
    """
    ignore = items[0].get('ignore_index', IGNORED_LABEL)
    table: Mapping[Colour, int] = items[0].get('label_colours') or {}
    seen: dict[int, Colour] = {}
    conflict, unknown = '', Counter[Colour]()
    contradicted: list[str] = []
    for item in items:
        image = open_label_of(item)
        if image.mode != 'P':
            continue
        for number, colour in used_colours(image).items():
            if number == ignore:
                continue
            if not conflict and seen.setdefault(number, colour) != colour:
                conflict = f'{item["seg_map_path"]}: {palette_conflict(number, colour, seen[number])}'
            if colour not in table:
                unknown[colour] += 1
            elif table[colour] != class_of_number(number, item):
                contradicted.append(f'{number} has {described(colour)}, the colour of class {table[colour]}')
    if seen and not unknown:
        if contradicted or conflict:
            warnings.warn(
                f'the palettes of the labels in {os.path.dirname(items[0]["seg_map_path"])} do not number the classes '
                f'as the known colours do ({first_few(list(dict.fromkeys(contradicted)), 1)}): labels are read by '
                'colour. label_colours=False reads the numbers',
                stacklevel=2,
            )
        return dict(label_reading=PALETTES, label_palette=None)
    if conflict:
        others = f'. No class has {first_few([described(colour) for colour in unknown])}' if table else ''
        raise ValueError(conflict + others)
    if contradicted:
        raise ValueError(
            f'the palettes of the labels in {os.path.dirname(items[0]["seg_map_path"])} contradict the colours of the '
            f'classes: number {contradicted[0]}. They cannot be read by colour either, as no class has '
            f'{first_few([described(colour) for colour in unknown])}. Complete the colours (label_colours, or '
            '"palette" in classes.json), or set label_colours=False if the numbers are right'
        )
    return dict(label_reading=CHANNELS, label_palette=seen)


def _check_values(values: set[int], probed: Sequence[Mapping[str, Any]]) -> None:
    """Refuse masks of 0 and 255 for two classes; warn of classes that do not occur."""
    item = probed[0]
    num_classes, folder = item['num_classes'], os.path.dirname(item['seg_map_path'])
    plain = item.get('label_map') is None and not item.get('reduce_zero_label') and not item.get('label_colours')
    if values == {0, IGNORED_LABEL} and num_classes > 1 and plain and item.get('ignore_index') == IGNORED_LABEL:
        raise ValueError(
            f'the {len(probed)} labels looked at in {folder} hold only 0 and 255. 255 is ignored, so that class 0 '
            'alone would be scored. If 255 is the second class, set num_classes=2 and label_map=[0,255], which is '
            'label_map={0: 0, 255: 1}; if 255 does stand for no class, label_map={0: 0, 1: 1, 255: 255}, with all '
            'classes, says so'
        )
    values = values - {IGNORED_LABEL}
    if values and max(values) + 1 < num_classes:
        warnings.warn(
            f'num_classes is {num_classes}, but the {len(probed)} labels looked at in {folder} hold only the classes '
            f'0..{max(values)} ({max(values) + 1} classes). More clusters than classes is allowed; set '
            f'num_classes={max(values) + 1} if it is not meant',
            stacklevel=2,
        )


def _suggestion(probed: Sequence[Mapping[str, Any]]) -> str:
    """What may be meant by values that are no class numbers."""
    item = probed[0]
    num_classes, ignore = item['num_classes'], item.get('ignore_index', IGNORED_LABEL)
    if item.get('label_map') is not None:
        return ''
    values: set[int] = set()
    for one in probed:
        image = open_label_of(one)
        values |= set(np.unique(class_numbers(image, one['seg_map_path'])).astype(int).tolist())
    shown = ', '.join(map(str, sorted(values)[:12])) + ', ...' * (len(values) > 12)
    text = f'. The {len(probed)} labels looked at hold {len(values)} values: {shown}'
    if max(values - {ignore}, default=0) == num_classes and min(values) >= 0:
        return f'{text}. Set reduce_zero_label=True if 0 stands for no class, else num_classes={num_classes + 1}'
    for found in (sorted(values), sorted(values - {ignore})):
        if len(found) <= num_classes and (len(found) == num_classes or ignore not in found):
            return f'{text}. If these are the classes in order, set label_map={found}'
    return f'{text}. Set num_classes to their number, or label_map, which gives each value its class'
