"""Transport plans as matrix pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omh_mmseg.visualization.colours import checked_palette, cluster_palettes
from omh_mmseg.visualization.figures import TEXT_COLOUR, TEXT_SIZE, TITLE_SIZE, add_note, new_figure, save_figure
from omh_mmseg.visualization.layout import cluster_order, parent_shares
from omh_mmseg.visualization.panels import add_colour_bar, add_panel, thin_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from omh_mmseg.transport import Hierarchy

_LEFT, _RIGHT, _TOP, _BOTTOM, _STRIP = 0.95, 0.35, 0.75, 1.15, 0.12  # inches
_LARGEST_CELL, _SMALLEST_CELL, _PANEL_HEIGHT = 0.32, 0.12, 5.0
_SHORTEST_BAR = 1.7
_NOTE = (
    'Each row spreads one finer cluster over the coarser ones, and sums to 1. Rows are in the order of their parents:\n'
    'one dark cell per row along the diagonal is a clear hierarchy, an even tint is none.'
)


def draw_plan_matrices(
    path: str | os.PathLike[str], hierarchy: Hierarchy, palettes: Sequence[np.ndarray] | None = None
) -> Path:
    """Draw each plan as a matrix, finer clusters as rows, coarser ones as columns.

    Rows are the plan conditioned on the finer cluster (docs/methods/omh.md 2.4). Clusters are ordered by
    :func:`cluster_order`, so a good hierarchy looks block-diagonal; strips along the axes show cluster colours.

    Args:
        path: PNG to write.
        hierarchy: Levels and plans. With a single level there is no plan, and the picture says so.
        palettes: (K_l, 3) colours per level. Default: :func:`cluster_palettes`.

    Returns:
        ``path``.
    """
    palettes = checked_palettes(hierarchy, palettes)
    if not hierarchy.plans:
        figure = new_figure(5, 1.5)
        figure.text(0.5, 0.5, 'One level: there is no plan.', ha='center', va='center', fontsize=TITLE_SIZE)
        return save_figure(figure, path)

    shares, orders = parent_shares(hierarchy), cluster_order(hierarchy)
    cells = [float(np.clip(_PANEL_HEIGHT / len(share), _SMALLEST_CELL, _LARGEST_CELL)) for share in shares]
    widths = [max(share.shape[1] * cell, 1.9) for share, cell in zip(shares, cells, strict=True)]
    heights = [len(share) * cell for share, cell in zip(shares, cells, strict=True)]
    bar = 0.15
    width = max(sum(widths) + len(shares) * (_LEFT + _RIGHT) + bar + 0.6, 7.8)
    height = max(*heights, _SHORTEST_BAR) + _TOP + _BOTTOM
    figure = new_figure(width, height)

    left = _LEFT
    for level, (share, panel_width, panel_height) in enumerate(zip(shares, widths, heights, strict=True)):
        axes = add_panel(figure, left, height - _TOP - panel_height, panel_width, panel_height)
        rows, columns = orders[level + 1], orders[level]
        image = axes.imshow(share[np.ix_(rows, columns)], cmap='Blues', vmin=0, vmax=1, aspect='auto')
        for row in np.flatnonzero(np.diff(np.asarray(hierarchy.parents[level])[rows])):
            axes.axhline(row + 0.5, color='#999999', linewidth=0.5)
        _label(axes, level, rows, columns, palettes, (panel_width, panel_height))
        clear = share.max(axis=1).mean()
        axes.set_title(
            f'level {level + 2} in level {level + 1}\nparent takes {100 * clear:.0f} % on average',
            fontsize=TITLE_SIZE, color=TEXT_COLOUR, loc='left', pad=8,
        )  # fmt: skip
        left += panel_width + _LEFT + _RIGHT

    bar_height = float(np.clip(heights[-1], _SHORTEST_BAR, 3.0))
    bottom = height - _TOP - bar_height
    add_colour_bar(figure, image, left - _LEFT, bottom, bar, bar_height, 'share of the finer cluster')
    add_note(figure, _NOTE, left=0.25, size=TEXT_SIZE)
    return save_figure(figure, path)


def checked_palettes(hierarchy: Hierarchy, palettes: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """Return one palette per level, the default ones for None; ValueError if their sizes are not the levels'."""
    if palettes is None:
        return cluster_palettes(hierarchy)
    sizes = [len(palette) for palette in palettes]
    if sizes != list(hierarchy.level_sizes):
        raise ValueError(f'palettes of sizes {sizes} do not fit levels of {list(hierarchy.level_sizes)} clusters')
    return [checked_palette(palette) for palette in palettes]


def _label(
    axes: Axes, level: int, rows: np.ndarray, columns: np.ndarray, palettes: Sequence[np.ndarray],
    size: tuple[float, float],
) -> None:  # fmt: skip
    """Put colour strips with cluster numbers along both axes."""
    panel_width, panel_height = size
    axes.set(xticks=[], yticks=[])
    thin_frame(axes)
    strips = (
        (axes.inset_axes((-1.5 * _STRIP / panel_width, 0, _STRIP / panel_width, 1)), rows, level + 1),
        (axes.inset_axes((0, -1.5 * _STRIP / panel_height, 1, _STRIP / panel_height)), columns, level),
    )
    for strip, order, strip_level in strips:
        vertical = order is rows
        colours = palettes[strip_level][order]
        strip.imshow(colours[:, None] if vertical else colours[None], aspect='auto', interpolation='nearest')
        room = (panel_height if vertical else panel_width) / len(order) * 72
        font = float(np.clip(0.72 * room, 4, TEXT_SIZE))
        axis, other = (strip.yaxis, strip.xaxis) if vertical else (strip.xaxis, strip.yaxis)
        axis.set_ticks(range(len(order)), [str(number) for number in order], fontsize=font, color=TEXT_COLOUR)
        crowded = not vertical and len(order) > 9 and room < 11
        strip.tick_params(length=0, pad=1.5, labelrotation=90 if crowded else 0)
        other.set_ticks([])
        strip.set_frame_on(False)
        axis.set_label_text(f'cluster of level {strip_level + 1}', fontsize=TEXT_SIZE, color=TEXT_COLOUR)
