"""Sets of classes that one data set's labels can be read as, and how the finer of them lie in the coarser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.text import first_few


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
        if ((table < 0) | ((table >= len(self.classes)) & (table != IGNORED_LABEL))).any():
            raise ValueError(
                f'the table of {self.name!r} must hold classes in 0..{len(self.classes) - 1}, or {IGNORED_LABEL} for '
                f'none; got {sorted(set(table.tolist()))}'
            )
        object.__setattr__(self, 'table', table)

    def merge(self, counts: np.ndarray) -> np.ndarray:
        """Sum the columns of (clusters, finest labels) counts by class: (clusters, classes)."""
        counts = np.asarray(counts)
        merged = np.zeros((len(counts), len(self.classes)), counts.dtype)
        known = self.table != IGNORED_LABEL
        np.add.at(merged.T, self.table[known], counts.T[known])
        return merged

    def parents_in(self, coarser: Granularity) -> np.ndarray:
        """Class of the coarser (or the same) granularity that holds each class of this one, (classes,).

        Raises:
            ValueError: A class has finest labels of several coarser classes, or of none.
        """
        parents = np.empty(len(self.classes), dtype=np.int64)
        for number, name in enumerate(self.classes):
            holders = set(coarser.table[self.table == number].tolist())
            if len(holders) != 1 or IGNORED_LABEL in holders:
                names = [coarser.classes[parent] for parent in sorted(holders - {IGNORED_LABEL})]
                raise ValueError(
                    f'{name!r} of {self.name!r} lies in {len(names)} classes of {coarser.name!r}'
                    f'{f" ({first_few(names)})" if names else ""}; a hierarchy needs exactly one'
                )
            (parents[number],) = holders
        return parents


def granularity_of_levels(sizes: Sequence[int], granularities: Sequence[Granularity]) -> list[Granularity]:
    """For each level of clusters the granularity with the number of classes that is nearest, by ratio.

    Args:
        sizes: Numbers of clusters, growing.
        granularities: Coarsest first.

    Returns:
        One granularity per level; several levels may have the same one.
    """
    logs = np.log([len(one.classes) for one in granularities])
    return [granularities[int(np.abs(logs - np.log(size)).argmin())] for size in sizes]
