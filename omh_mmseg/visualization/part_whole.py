"""Which classes the finest clusters show, in the order of the tree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omh_mmseg.visualization.figures import TEXT_COLOUR, TEXT_SIZE, TITLE_SIZE, add_note, new_figure, save_figure
from omh_mmseg.visualization.layout import cluster_order
from omh_mmseg.visualization.panels import LETTER, add_panel, plain
from omh_mmseg.visualization.plans import checked_palettes

if TYPE_CHECKING:
    from omh_mmseg.transport import Hierarchy

_STRIP, _BARS, _TALLEST = 0.16, 1.3, 11.0  # inches


def draw_part_whole(
    path: str | os.PathLike[str],
    hierarchy: Hierarchy,
    counts: np.ndarray,
    classes: Sequence[str],
    palettes: Sequence[np.ndarray] | None = None,
) -> Path:
    """Draw the finest clusters as rows, by their ancestors, and spread the pixels of each over the classes.

    Clusters without a pixel are left out; lines part the families of the coarsest level. Strips at the left show the
    colours of a cluster and its ancestors, bars at the right its share of all pixels.

    Args:
        path: PNG to write.
        hierarchy: Levels and plans.
        counts: Pixels of each finest cluster and class, (K_N, classes).
        classes: Names.
        palettes: (K_l, 3) colours per level. Default: :func:`cluster_palettes`.

    Returns:
        ``path``.

    Raises:
        ValueError: Sizes do not fit, or no cluster has a pixel.
    """
    counts = np.asarray(counts)
    if counts.shape != (hierarchy.level_sizes[-1], len(classes)):
        raise ValueError(
            f'counts of shape {counts.shape} do not fit {hierarchy.level_sizes[-1]} clusters and {len(classes)} classes'
        )
    palettes = checked_palettes(hierarchy, palettes)
    order = np.array([cluster for cluster in cluster_order(hierarchy)[-1] if counts[cluster].any()])
    if not len(order):
        raise ValueError('no cluster has a pixel')
    shares = counts[order] / counts[order].sum(axis=1, keepdims=True)
    ancestors = [order]
    for parents in reversed(hierarchy.parents):
        ancestors.insert(0, parents.numpy()[ancestors[0]])

    cell = float(np.clip(_TALLEST / len(order), 0.1, 0.24))
    column = float(np.clip(7.5 / len(classes), 0.1, 0.34))
    panel = (max(column * len(classes), 2.0), cell * len(order))
    depth = len(ancestors)
    left = 0.55 + depth * (_STRIP + 0.03)
    bottom = 0.55 + LETTER * max(map(len, classes))
    figure = new_figure(max(left + panel[0] + 0.25 + _BARS + 0.25, 6.6), bottom + panel[1] + 0.5)
    axes = add_panel(figure, left, bottom, *panel)
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    plain(axes)
    axes.set_title('classes of each finest cluster', fontsize=TITLE_SIZE - 1, color=TEXT_COLOUR, loc='left')
    font = float(np.clip(0.8 * 72 * column, 4, TEXT_SIZE))
    axes.set_xticks(range(len(classes)), classes, fontsize=font, rotation=90)
    axes.set_yticks([])
    axes.tick_params(length=0, pad=2)
    for row in np.flatnonzero(np.diff(ancestors[0])):
        axes.axhline(row + 0.5, color='#777777', linewidth=0.6)

    font = float(np.clip(0.75 * 72 * cell, 4, TEXT_SIZE))
    for level, (clusters, palette) in enumerate(zip(ancestors, palettes)):
        strip = add_panel(figure, 0.5 + level * (_STRIP + 0.03), bottom, _STRIP, panel[1])
        strip.imshow(palette[clusters][:, None], aspect='auto', interpolation='nearest')
        strip.set_frame_on(False)
        strip.set_xticks([0], [str(level + 1)], fontsize=TEXT_SIZE - 1, color=TEXT_COLOUR)
        labels = [str(cluster) for cluster in order] if level == 0 else []
        strip.set_yticks(range(len(labels)), labels, fontsize=font, color=TEXT_COLOUR)
        strip.tick_params(length=0, pad=2)
    total = 100 * counts[order].sum(axis=1) / counts.sum()
    bars = add_panel(figure, left + panel[0] + 0.25, bottom, _BARS, panel[1])
    bars.barh(range(len(order)), total, height=0.8, color=palettes[-1][order] / 255)
    plain(bars, '', '% of all pixels', grid='x')
    bars.set_yticks([])
    bars.set_ylim(len(order) - 0.5, -0.5)
    absent = hierarchy.level_sizes[-1] - len(order)
    note = f'Rows: clusters of level {depth}, with the colours of their ancestors at each level. '
    note += f'{absent} without a pixel are left out.' if absent else 'All have pixels.'
    add_note(figure, note)
    return save_figure(figure, path)
