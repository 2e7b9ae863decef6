"""How many clusters the levels of a hierarchy have."""

from __future__ import annotations

import math
from collections.abc import Sequence


def expand_levels(num_classes: int, num_levels: int, expansion: float) -> list[int]:
    """Cluster counts ``K_1 = num_classes``, ``K_{l+1} = round(expansion K_l)``, coarsest first.

    Raises:
        ValueError: If num_classes or num_levels is no integer of at least 1, or the expansion below 1 or infinite.
    """
    whole = all(isinstance(number, int) and number >= 1 for number in (num_classes, num_levels))
    if not whole or not 1 <= expansion < math.inf:
        raise ValueError(
            'num_classes and num_levels must be integers of at least 1 and expansion finite and at least 1.0; '
            f'got {num_classes}, {num_levels} and {expansion}.'
        )
    sizes = [num_classes]
    while len(sizes) < num_levels:
        sizes.append(round(expansion * sizes[-1]))
    return sizes


def level_sizes_of(
    num_classes: int, num_levels: int | None, expansion: float | None, level_sizes: Sequence[int] | None
) -> list[int]:
    """Cluster counts, coarsest first: the explicit ones, or by `expand_levels` with 3 levels and expansion 2.0.

    Raises:
        ValueError: If explicit sizes do not start with num_classes, shrink, or stand beside the other two; and as
            `expand_levels`.
    """
    if level_sizes is None:
        levels, factor = 3 if num_levels is None else num_levels, 2.0 if expansion is None else expansion
        return expand_levels(num_classes, levels, factor)
    if not isinstance(level_sizes, Sequence) or not all(isinstance(size, int) for size in level_sizes):
        raise ValueError(f'level_sizes must be a list of integers, such as [27, 54]; got {level_sizes!r}.')
    if num_levels is not None or expansion is not None:
        raise ValueError(
            f'level_sizes={list(level_sizes)} says how many levels and clusters there are; set num_levels and '
            f'expansion to None (got {num_levels} and {expansion}).'
        )
    sizes = list(level_sizes)
    if not sizes or sizes[0] != num_classes or any(b < a for a, b in zip(sizes, sizes[1:])):
        raise ValueError(
            f'level_sizes must start with num_classes={num_classes} and never shrink (coarsest first); got {sizes}.'
        )
    return sizes
