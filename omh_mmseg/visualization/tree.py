"""The hierarchy as a tree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omh_mmseg.visualization.colours import UNUSED_COLOUR, hex_colour
from omh_mmseg.visualization.figures import NOTE_COLOUR, TEXT_COLOUR, TITLE_SIZE, new_figure, save_figure
from omh_mmseg.visualization.layout import cluster_order, parent_shares
from omh_mmseg.visualization.plans import checked_palettes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from omh_mmseg.transport import Hierarchy

_WIDEST_EDGE, _THINNEST_EDGE = 5.0, 0.4  # points
_FURTHER_PARENT = 0.15
_FURTHER_EDGE: dict[str, Any] = dict(linewidth=0.8, linestyle=(0, (4, 3)))
_KEY_WIDTH = 8.2  # inches


def draw_hierarchy_tree(
    path: str | os.PathLike[str],
    hierarchy: Hierarchy,
    palettes: Sequence[np.ndarray] | None = None,
    usage: Sequence[np.ndarray | Sequence[float]] | None = None,
    names: Sequence[Sequence[str | None]] | None = None,
) -> Path:
    """Draw the levels from left to right, each cluster joined to its parent.

    A line is as wide as the share of the finer cluster's plan mass that its parent takes; further parents with more
    than 15 % appear as dashed lines. A disc's area shows the cluster's share of pixels; clusters without any are grey.

    Args:
        path: PNG to write.
        hierarchy: Levels, plans and parents.
        palettes: (K_l, 3) colours per level. Default: :func:`cluster_palettes`.
        usage: Per level the pixels, or shares of them, of each cluster. Default: all alike.
        names: Per level a name or None for each cluster, such as its most frequent class.

    Returns:
        ``path``.

    Raises:
        ValueError: Sizes do not fit the levels, or a usage is negative or not finite.
    """
    palettes = checked_palettes(hierarchy, palettes)
    used = usage is not None
    shares = _usage_shares(hierarchy, usage)
    if names is not None and [len(level) for level in names] != list(hierarchy.level_sizes):
        raise ValueError(
            f'names of sizes {[len(level) for level in names]} do not fit levels {list(hierarchy.level_sizes)}'
        )

    heights = _heights(hierarchy)
    slots = max(float(level.max()) for level in heights) + 1
    slot = float(np.clip(8 / slots, 0.16, 0.42))  # inches
    font = float(np.clip(slot * 72 * 0.55, 6, 9))
    depth = len(hierarchy.level_sizes)
    longest = max((len(name) for level in names or [] for name in level if name), default=0)
    text_room = max(0.45 + 0.011 * font * longest, 0.95)
    height = slots * slot + 1.75
    width = max(2 * text_room + 0.4 + max((depth - 1) * (2.2 + text_room), 0.4 * height), _KEY_WIDTH)
    figure = new_figure(width, height)
    axes = figure.add_axes((0, 1.0 / height, 1, (height - 1.65) / height))
    axes.set(xlim=(0, width), ylim=(slots - 0.5, -0.5))
    axes.axis('off')
    span = width - 2 * text_room - 0.4
    columns = [text_room + 0.2 + span * (level / (depth - 1) if depth > 1 else 0.4) for level in range(depth)]

    _draw_edges(axes, hierarchy, heights, columns, shares, palettes, used)
    largest_disc = (min(slot * 72 * 1.0, 22)) ** 2
    for level, column in enumerate(columns):
        in_use = shares[level] > 0
        relative = shares[level] / max(shares[level].max(), 1e-12) if used else np.full(len(shares[level]), 0.5)
        colours = np.where(in_use[:, None], palettes[level], UNUSED_COLOUR) / 255
        axes.scatter(
            np.full(len(in_use), column), heights[level], s=np.maximum(relative * largest_disc, 9), c=colours,
            edgecolors=['#333333' if flag else '#999999' for flag in in_use], linewidths=0.6, zorder=3,
        )  # fmt: skip
        _draw_names(axes, level, depth, column, heights[level], in_use, names, font, slot)
        axes.annotate(
            f'level {level + 1}: {len(in_use)} clusters', (column, 1), xycoords=('data', 'axes fraction'),
            xytext=(0, 12), textcoords='offset points', ha='center', fontsize=TITLE_SIZE, color=TEXT_COLOUR,
        )  # fmt: skip
    _draw_key(axes, used, depth > 1)
    return save_figure(figure, path)


def _usage_shares(hierarchy: Hierarchy, usage: Sequence[np.ndarray | Sequence[float]] | None) -> list[np.ndarray]:
    sizes = list(hierarchy.level_sizes)
    if usage is None:
        return [np.ones(size) for size in sizes]
    shares = [np.asarray(level, dtype=np.float64) for level in usage]
    if [share.shape for share in shares] != [(size,) for size in sizes]:
        raise ValueError(f'usage of shapes {[share.shape for share in shares]} does not fit levels of {sizes} clusters')
    for number, share in enumerate(shares, start=1):
        if not (np.isfinite(share) & (share >= 0)).all():
            raise ValueError(f'usage of level {number} must be finite and not negative, got {share}')
    return [share / max(share.sum(), 1e-12) for share in shares]


def _heights(hierarchy: Hierarchy) -> list[np.ndarray]:
    """Vertical position of each cluster: leaves one apart, parents in the middle of their children."""
    orders, depth = cluster_order(hierarchy), len(hierarchy.level_sizes)
    heights = [np.full(size, np.nan) for size in hierarchy.level_sizes]
    next_slot = 0.0

    def place(level: int, cluster: int) -> None:
        nonlocal next_slot
        children: list[int] = []
        if level + 1 < depth:
            parents = np.asarray(hierarchy.parents[level])
            children = [child for child in orders[level + 1] if parents[child] == cluster]
        for child in children:
            place(level + 1, child)
        if children:
            heights[level][cluster] = heights[level + 1][children].mean()
        else:
            heights[level][cluster] = next_slot
            next_slot += 1

    for root in orders[0]:
        place(0, root)
    return heights


def _draw_edges(
    axes: Axes, hierarchy: Hierarchy, heights: list[np.ndarray], columns: list[float], usage: list[np.ndarray],
    palettes: list[np.ndarray], used: bool,
) -> None:  # fmt: skip
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    for level, shares in enumerate(parent_shares(hierarchy)):
        parents = np.asarray(hierarchy.parents[level])
        for child, row in enumerate(shares):
            for parent in np.flatnonzero((row >= _FURTHER_PARENT) | (np.arange(len(row)) == parents[child])):
                colour = palettes[level + 1][child] / 255
                if used and (usage[level + 1][child] <= 0 or usage[level][parent] <= 0):
                    colour = UNUSED_COLOUR / 255
                start = (columns[level], heights[level][parent])
                stop = (columns[level + 1], heights[level + 1][child])
                middle = (start[0] + stop[0]) / 2
                curve = Curve([start, (middle, start[1]), (middle, stop[1]), stop], [1, 4, 4, 4])
                width = max(_WIDEST_EDGE * row[parent], _THINNEST_EDGE)
                style: dict[str, Any] = dict(edgecolor=colour, linewidth=width, zorder=2, alpha=0.9)
                if parent != parents[child]:
                    style = dict(_FURTHER_EDGE, edgecolor='#888888', zorder=1, alpha=0.6)
                axes.add_patch(PathPatch(curve, facecolor='none', **style))


def _draw_names(
    axes: Axes, level: int, depth: int, column: float, heights: np.ndarray, in_use: np.ndarray,
    names: Sequence[Sequence[str | None]] | None, font: float, slot: float,
) -> None:  # fmt: skip
    """Write names left of the first level, right of the last one, and above the line that arrives in between."""
    first, last = level == 0, level == depth - 1
    disc = min(slot * 36, 11) + 3  # points
    offset, alignment = {
        (True, False): ((-disc, 0), ('right', 'center')),
        (False, False): ((-disc, _WIDEST_EDGE / 2 + 0.5), ('right', 'bottom')),
    }.get((first, last), ((disc, 0), ('left', 'center')))
    for cluster, height in enumerate(heights):
        name = None if names is None else names[level][cluster]
        axes.annotate(
            f'{cluster} {name}' if name else str(cluster), (column, height), xytext=offset,
            textcoords='offset points', ha=alignment[0], va=alignment[1], fontsize=font, zorder=4,
            color=TEXT_COLOUR if in_use[cluster] else '#999999',
            bbox=dict(boxstyle='square,pad=0.05', facecolor='white', edgecolor='none', alpha=0.75),
        )  # fmt: skip


def _draw_key(axes: Axes, used: bool, edges: bool) -> None:
    from matplotlib.lines import Line2D

    entries: list[Line2D] = []
    if edges:
        entries += [
            Line2D([], [], color=NOTE_COLOUR, linewidth=_WIDEST_EDGE, label='parent takes all of the plan mass'),
            Line2D([], [], color=NOTE_COLOUR, linewidth=_WIDEST_EDGE / 3, label='parent takes a third'),
            Line2D([], [], color='#888888', label='further parent, 15 % or more', **_FURTHER_EDGE),
        ]
    disc: dict[str, Any] = dict(linestyle='none', marker='o', markeredgecolor='#333333', markeredgewidth=0.6)
    if used:
        unused = hex_colour(UNUSED_COLOUR)
        entries += [
            Line2D([], [], markerfacecolor='#777777', markersize=10, label='area: share of pixels', **disc),
            Line2D([], [], markerfacecolor=unused, markersize=6, label='cluster without a pixel', **disc),
        ]
    if entries:
        axes.figure.legend(
            handles=entries, loc='lower center', ncols=3, frameon=False, fontsize=9, labelcolor=NOTE_COLOUR,
            borderaxespad=0.4,
        )  # fmt: skip
