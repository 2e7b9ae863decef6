"""Whether runs learn the same clusters and the same tree, as matrices of pairs of runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omh_mmseg.visualization.figures import TEXT_COLOUR, TEXT_SIZE, add_note, new_figure, save_figure
from omh_mmseg.visualization.panels import LETTER, add_panel, matrix

_CELL, _GAP, _TITLE, _LEFT = 0.5, 0.45, 0.45, 0.75  # inches
_NOTE = (
    'Above: adjusted Rand index of the two segmentations, 0 by chance, 1 for the same clusters under other numbers.\n'
    'Below: share of the matched finer clusters whose parents are matched, too; chance: expected of random parents.'
)


def draw_stability(
    path: str | os.PathLike[str],
    runs: Sequence[str],
    clusters: Sequence[Mapping[str, Any]],
    parents: Sequence[Mapping[str, Any]],
) -> Path:
    """Draw the agreement of all pairs of runs.

    Args:
        path: PNG to write.
        runs: Their names.
        clusters: Rows with ``first``, ``second`` (names), ``level`` and ``ari``.
        parents: Rows with ``first``, ``second``, ``levels``, ``agreement`` and ``chance``.

    Returns:
        ``path``.

    Raises:
        ValueError: Fewer than two runs.
    """
    if len(runs) < 2:
        raise ValueError(f'two runs at least are needed to compare; got {len(runs)}')
    letters = {name: chr(ord('A') + number) if len(runs) <= 26 else str(number) for number, name in enumerate(runs)}
    lines: list[list[tuple[str, np.ndarray]]] = [[]]
    for level in sorted({row['level'] for row in clusters}):
        rows = [row for row in clusters if row['level'] == level]
        lines[0].append((f'clusters of level {level}', _pairs(runs, rows, 'ari')))
    level_pairs = list(dict.fromkeys(str(row['levels']) for row in parents))
    lines += [[]] if level_pairs else []
    for name in level_pairs:
        rows = [row for row in parents if str(row['levels']) == name]
        chance = np.nanmean([float(row['chance']) for row in rows])
        title = f'parents, levels {" and ".join(name.split("-"))} (chance {chance:.2f})'
        lines[1].append((title, _pairs(runs, rows, 'agreement')))
    titles = [title for line in lines for title, _ in line]
    side = max(_CELL * len(runs), LETTER * max(map(len, titles)), 1.3)
    key_height = 0.17 * len(runs) + 0.1
    width = max(_LEFT + max(map(len, lines)) * (side + _GAP), 7.2, 0.6 + LETTER * max(map(len, runs)))
    height = len(lines) * (_TITLE + side + 0.3) + key_height + 0.55
    figure = new_figure(width, height)
    for number, line in enumerate(lines):
        bottom = height - (number + 1) * (_TITLE + side) - number * 0.3
        for place, (title, values) in enumerate(line):
            texts = [['' if np.isnan(value) else f'{value:.2f}' for value in row] for row in values]
            axes = add_panel(figure, _LEFT + place * (side + _GAP), bottom, side, side)
            matrix(axes, values, texts, list(letters.values()), list(letters.values()))
            axes.set_title(title, fontsize=TEXT_SIZE + 1, color=TEXT_COLOUR, loc='left')
    key = '\n'.join(f'{letter}: {name}' for name, letter in letters.items())
    add_note(figure, key, bottom=0.5, colour=TEXT_COLOUR)
    add_note(figure, _NOTE, bottom=0.1)
    return save_figure(figure, path)


def _pairs(runs: Sequence[str], rows: Sequence[Mapping[str, Any]], figure: str) -> np.ndarray:
    """A figure of pairs of runs as a symmetric matrix, (runs, runs), NaN where there is none."""
    values = np.full((len(runs), len(runs)), np.nan)
    for row in rows:
        a, b = runs.index(row['first']), runs.index(row['second'])
        values[a, b] = values[b, a] = float(row[figure])
    return values
