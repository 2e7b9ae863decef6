"""How many clusters the levels of a hierarchy have."""

from __future__ import annotations

from collections.abc import Sequence

from omh_mmseg.utils.checks import MAX_SIZE, SIZE, ranges


@ranges(num_classes=SIZE, num_levels='[1, 32]', expansion='[1, 64]')
def expand_levels(num_classes: int, num_levels: int, expansion: float) -> list[int]:
    """Cluster counts ``K_1 = num_classes``, ``K_{l+1} = round(expansion K_l)``, coarsest first.

    Raises:
        ValueError: If a number is of another type or out of range, a level grows beyond what memory is taken for, or
            not at all although the expansion is above 1.
    """
    sizes = [num_classes]
    while len(sizes) < num_levels:
        sizes.append(round(expansion * sizes[-1]))
        if sizes[-1] > MAX_SIZE:
            raise ValueError(
                f'expansion={expansion} makes level {len(sizes)} {sizes[-1]} clusters; at most {MAX_SIZE} are taken. '
                'Lower expansion or num_levels.'
            )
        if expansion > 1 and sizes[-1] == sizes[-2]:
            raise ValueError(
                f'expansion={expansion} does not grow a level of {sizes[-2]} clusters, as {expansion * sizes[-2]:g} is '
                f'rounded to {sizes[-1]}. Set expansion to at least {1 + 1 / sizes[-2]:.3g}, or to 1.0 for levels of '
                'one size.'
            )
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
