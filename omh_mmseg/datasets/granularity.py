"""Labels of several granularities: which coarser class each of a data set's finest labels belongs to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omh_mmseg.datasets.base import first_few
from omh_mmseg.registry import DATASETS

NO_CLASS = 255
ONLY_NAME = 'class'
"""Name of the granularity of a data set that has no other."""


@dataclass(frozen=True)
class Granularity:
    """One set of classes that a data set's labels can be read as.

    Attributes:
        name: Value of the data set's ``level``.
        classes: Names.
        table: (finest labels,) class of each of the finest labels; 255 for none.
    """

    name: str
    classes: tuple[str, ...]
    table: np.ndarray

    def __post_init__(self) -> None:
        table = np.asarray(self.table, dtype=np.int64)
        if ((table < 0) | ((table >= len(self.classes)) & (table != NO_CLASS))).any():
            raise ValueError(
                f'the table of {self.name!r} must hold classes in 0..{len(self.classes) - 1}, or {NO_CLASS} for none; '
                f'got {sorted(set(table.tolist()))}'
            )
        object.__setattr__(self, 'table', table)

    def merge(self, counts: np.ndarray) -> np.ndarray:
        """Sum the columns of (clusters, finest labels) counts by class: (clusters, classes)."""
        counts = np.asarray(counts)
        merged = np.zeros((len(counts), len(self.classes)), counts.dtype)
        known = self.table != NO_CLASS
        np.add.at(merged.T, self.table[known], counts.T[known])
        return merged

    def parents_in(self, coarser: Granularity) -> np.ndarray:
        """Class of the coarser (or the same) granularity that holds each class of this one, (classes,).

        Raises:
            ValueError: A class has finest labels of several coarser classes, or of none.
        """
        parents = np.empty(len(self.classes), dtype=np.int64)
        for number, name in enumerate(self.classes):
            found = set(coarser.table[self.table == number].tolist())
            if len(found) != 1 or NO_CLASS in found:
                names = [coarser.classes[parent] for parent in sorted(found - {NO_CLASS})]
                raise ValueError(
                    f'{name!r} of {self.name!r} lies in {len(names)} classes of {coarser.name!r}'
                    f'{f" ({first_few(names)})" if names else ""}; a hierarchy needs exactly one'
                )
            (parents[number],) = found
        return parents


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
        named = {name: {group: list(members) for group, members in own.items()} for name, own in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} must map granularities to groups and groups to lists of classes, such as '
            f'{{"category": {{"flat": ["road", "sidewalk"]}}}} ({error})'
        ) from error
    numbers = {name: number for number, name in enumerate(classes)}
    found = []
    for name, own in named.items():
        table = np.full(len(classes), NO_CLASS)
        for number, (group, members) in enumerate(own.items()):
            unknown = [member for member in members if member not in numbers]
            if unknown:
                raise ValueError(
                    f'{path}: {group!r} of {name!r} has unknown classes: {first_few(unknown)}; the data set has '
                    f'{", ".join(classes)}'
                )
            twice = [member for member in members if table[numbers[member]] != NO_CLASS]
            if twice:
                raise ValueError(f'{path}: {name!r} has {first_few(twice)} in two groups')
            table[[numbers[member] for member in members]] = number
        found.append(Granularity(name, tuple(own), table))
    return tuple(found)


def granularity_of_levels(sizes: Sequence[int], granularities: Sequence[Granularity]) -> list[Granularity]:
    """For each level of clusters the granularity with the number of classes that is nearest, by ratio.

    Args:
        sizes: Numbers of clusters, growing.
        granularities: Coarsest first.
    """
    logs = np.log([len(one.classes) for one in granularities])
    return [granularities[int(np.abs(logs - np.log(size)).argmin())] for size in sizes]
