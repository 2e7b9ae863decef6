"""Scores of every level at every granularity, as matrices of numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omh_mmseg.visualization.figures import TEXT_COLOUR, TEXT_SIZE, add_note, new_figure, save_figure
from omh_mmseg.visualization.panels import LETTER, add_panel, matrix

# Figure, title, whether it is in percent.
PANELS = (
    ('mIoU', 'mIoU, one to one', True),
    ('majority_mIoU', 'mIoU, many to one', True),
    ('majority_aAcc', 'accuracy, many to one', True),
    ('NMI', 'NMI', False),
    ('ARI', 'ARI', False),
)
_GAP = 0.3
_NOTE = (
    'One to one only where a head has as many clusters as there are classes. Many to one rises with the number of\n'
    'clusters by itself: compare it along rows of the same size. Shades are relative to the best of a panel.'
)


def draw_level_scores(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Draw heads as rows and granularities as columns, a panel per figure.

    Args:
        path: PNG to write.
        rows: Of `omh_mmseg.utils.tables.summarise` over those of `level_scores`: ``head``, ``clusters``,
            ``labels``, ``classes``, ``runs``, and each figure with its ``<figure> spread``.

    Returns:
        ``path``.

    Raises:
        ValueError: There is no row.
    """
    if not rows:
        raise ValueError('no scores to draw')
    heads = list(dict.fromkeys((row['head'], row['clusters']) for row in rows))
    labels = list(dict.fromkeys((row['labels'], row['classes']) for row in rows))
    by_place = {(row['head'], row['labels']): row for row in rows}
    names = [f'{head}\n{clusters} clusters' for head, clusters in heads]
    columns = [f'{name}\n{classes}' for name, classes in labels]
    spread = any(row['runs'] > 1 for row in rows)
    cell = (max(0.62, LETTER * max(len(name) for name, _ in labels) + 0.15), 0.46)
    panel = (cell[0] * len(columns), cell[1] * len(heads))
    left = 0.95
    figure = new_figure(max(left + len(PANELS) * (panel[0] + _GAP), 7.4), 0.5 + panel[1] + 1.05)
    for place, (key, title, percent) in enumerate(PANELS):
        values = np.array([[float(by_place[head, label][key]) for label, _ in labels] for head, _ in heads])
        texts = [[_text(by_place[head, label], key, percent, spread) for label, _ in labels] for head, _ in heads]
        axes = add_panel(figure, left + place * (panel[0] + _GAP), 1.05, *panel)
        best = float(np.nanmax(values)) if not np.isnan(values).all() else 1.0
        matrix(axes, values, texts, names if place == 0 else [], columns, (0, max(best, 1e-6) * 1.15),
               TEXT_SIZE - 1.5)  # fmt: skip
        axes.set_title(title, fontsize=TEXT_SIZE + 0.5, color=TEXT_COLOUR, loc='left')
    add_note(figure, _NOTE)
    return save_figure(figure, path)


def _text(row: Mapping[str, Any], key: str, percent: bool, spread: bool) -> str:
    if math.isnan(row[key]):
        return ''
    digits = 1 if percent else 2
    text = f'{row[key]:.{digits}f}'
    return f'{text}\n±{row[f"{key} spread"]:.{digits}f}' if spread and row['runs'] > 1 else text
