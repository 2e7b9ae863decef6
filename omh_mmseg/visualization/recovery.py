"""How well trees of clusters recover a known tree, method by method."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omh_mmseg.visualization.figures import TEXT_SIZE, add_note, new_figure, save_figure
from omh_mmseg.visualization.panels import LETTER, add_panel, plain

_PANEL, _GAP, _ROW, _TITLE, _TICKS = 1.9, 0.3, 0.25, 0.4, 0.3  # inches
_COLUMNS = 4
_COLOURS = {'learned': '#0072b2', 'k-means': '#d55e00'}
_METHODS = dict(average='average linkage', ward='Ward linkage')
CHANCE, CHANCE_COLOUR = 'chance', '#999999'
_NOTE = (
    'A point is a run, a bar the mean. Parents from the plan, from the overlap of predictions, or from merging the '
    'finest centres;\nchance: the parents of the plan dealt at random (mean of the deals of a run). '
    '1 is a perfect tree, in every panel.'
)


def draw_recovery(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], figures: Mapping[str, str]) -> Path:
    """Draw a row per method and a panel per figure.

    Args:
        path: PNG to write.
        rows: One per run and method, with ``model``, ``clusters`` (``'learned'`` or ``'k-means'``), ``parents`` and the
            figures.
        figures: Title of each figure's panel.

    Returns:
        ``path``.

    Raises:
        ValueError: There is no row.
    """
    if not rows:
        raise ValueError('no run to draw')
    methods = list(dict.fromkeys((row['model'], row['clusters'], row['parents']) for row in rows))
    models = list(dict.fromkeys(model for model, _, _ in methods))
    names = [
        f'{f"{model}: " if len(models) > 1 else ""}{clusters}, {_METHODS.get(parents, parents)}'
        for model, clusters, parents in methods
    ]
    left = 0.3 + LETTER * max(map(len, names))
    columns, lines = min(len(figures), _COLUMNS), -(-len(figures) // _COLUMNS)
    width = max(left + columns * (_PANEL + _GAP) + 0.1, 7.6)
    panel = max(_ROW * len(methods), 0.8)
    height = lines * (_TITLE + panel + _TICKS) + 0.6
    figure = new_figure(width, height)
    for place, (key, title) in enumerate(figures.items()):
        line, column = divmod(place, _COLUMNS)
        bottom = height - (line + 1) * (_TITLE + panel) - line * _TICKS
        axes = add_panel(figure, left + column * (_PANEL + _GAP), bottom, _PANEL, panel)
        lowest = 0.0
        for position, method in enumerate(methods):
            values = [
                float(row[key])
                for row in rows
                if (row['model'], row['clusters'], row['parents']) == method and key in row
            ]
            if not values:
                continue
            colour = CHANCE_COLOUR if method[2] == CHANCE else _COLOURS.get(method[1], '#444444')
            axes.plot(values, [position] * len(values), 'o', color=colour, markersize=3.5, alpha=0.65, clip_on=False)
            mean = statistics.fmean(values)
            axes.plot([mean, mean], [position - 0.32, position + 0.32], color=colour, linewidth=1.8)
            lowest = min(lowest, *values)
        plain(axes, '', '', grid='x')
        axes.set_title(title, fontsize=TEXT_SIZE, loc='left')
        axes.set_xlim(lowest - 0.02 if lowest < 0 else 0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ['0', '', '0.5', '', '1'])
        axes.set_ylim(len(methods) - 0.5, -0.5)
        for border in range(1, len(methods)):
            if methods[border][:2] != methods[border - 1][:2]:
                axes.axhline(border - 0.5, color='#bbbbbb', linewidth=0.6)
        axes.set_yticks(range(len(methods)), names if column == 0 else [], fontsize=TEXT_SIZE - 1)
    add_note(figure, _NOTE)
    return save_figure(figure, path)
