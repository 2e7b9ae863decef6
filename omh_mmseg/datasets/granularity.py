"""Labels of several granularities: which coarser class each of a data set's finest labels belongs to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.text import first_few

ONLY_NAME = 'class'
"""Name of the granularity of a data set that has no other."""


def finest_labels(
    dataset: Mapping[str, Any], groups: str | os.PathLike[str] | None = None
) -> tuple[dict[str, Any], tuple[Granularity, ...]]:
    """Config of a data set with its finest labels, and what those can be merged to.

    Args:
        dataset: Config of the data set itself, without wrappers.
        groups: JSON file with more granularities, see `read_groups`.

    Returns:
        The config, and the granularities, coarsest first; the last one is that of the labels themselves.
    """
    kind = DATASETS.get(str(dataset['type']))
    known: tuple[Granularity, ...] = getattr(kind, 'GRANULARITIES', ())
    finest = dict(dataset)
    if known:
        finest |= dict(level=known[-1].name, metainfo=None)
    else:
        # The names alone are wanted, not the images.
        named = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
        classes = tuple(named.metainfo['classes'])
        known = (Granularity(ONLY_NAME, classes, np.arange(len(classes))),)
    return finest, known if groups is None else (*read_groups(groups, known[-1].classes), *known)


def read_groups(path: str | os.PathLike[str], classes: Sequence[str]) -> tuple[Granularity, ...]:
    """Read coarser classes of one's own from a JSON file, coarsest granularity first.

    The file maps the name of each granularity to its classes, and each of these to the data set's own classes in it::

        {"category": {"flat": ["road", "sidewalk"], "nature": ["tree"]}}

    A class in no group is left out at that granularity.

    Raises:
        FileNotFoundError: The file is absent.
        ValueError: It does not look like this, or names unknown classes or a class twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no file of groups {path}')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        named = {name: {group: list(members) for group, members in groups.items()} for name, groups in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} must map granularities to groups and groups to lists of classes, such as '
            f'{{"category": {{"flat": ["road", "sidewalk"]}}}} ({error})'
        ) from error
    numbers = {name: number for number, name in enumerate(classes)}
    granularities = []
    for name, groups in named.items():
        table = np.full(len(classes), IGNORED_LABEL)
        for number, (group, members) in enumerate(groups.items()):
            unknown = [member for member in members if member not in numbers]
            if unknown:
                raise ValueError(
                    f'{path}: {group!r} of {name!r} has unknown classes: {first_few(unknown)}; the data set has '
                    f'{", ".join(classes)}'
                )
            twice = [member for member in members if table[numbers[member]] != IGNORED_LABEL]
            if twice:
                raise ValueError(f'{path}: {name!r} has {first_few(twice)} in two groups')
            table[[numbers[member] for member in members]] = number
        granularities.append(Granularity(name, tuple(groups), table))
    return tuple(granularities)
