"""Whether runs learn the same clusters and the same tree, as matrices and rows of points."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omh_mmseg.visualization.figures import NOTE_COLOUR, TEXT_COLOUR, TEXT_SIZE, new_figure, save_figure
from omh_mmseg.visualization.panels import LETTER, add_panel, matrix, plain

OBSERVED_COLOUR, CHANCE_COLOUR = '#0072b2', '#999999'
_CELL, _GAP, _ROW, _PANEL = 0.5, 0.45, 0.24, 2.6  # inches
_NOTE = (
    'Above: adjusted Rand index of the two segmentations, 0 by chance, 1 for the same clusters under other numbers.\n'
    'Below: share of the matched finer clusters whose parents are matched, too; grey: expected of random parents.'
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
    levels = sorted({row['level'] for row in clusters})
    level_pairs = list(dict.fromkeys(str(row['levels']) for row in parents))
    pairs = list(dict.fromkeys((row['first'], row['second']) for row in clusters))
    letters = {name: chr(ord('A') + number) if len(runs) <= 26 else str(number) for number, name in enumerate(runs)}
    side = max(_CELL * len(runs), 1.3)
    key_height = 0.17 * len(runs) + 0.1
    below = max(_ROW * len(pairs), 0.5) if level_pairs else 0
    left = 0.75
    width = max(left + len(levels) * (side + _GAP), left + len(level_pairs) * (_PANEL + _GAP), 7.2,
                0.6 + LETTER * max(map(len, runs)))  # fmt: skip
    height = 0.45 + side + 0.75 + below + (0.55 if level_pairs else 0) + key_height + 0.55
    figure = new_figure(width, height)
    bottom = height - 0.45 - side
    for place, level in enumerate(levels):
        values = np.full((len(runs), len(runs)), np.nan)
        for row in clusters:
            if row['level'] == level:
                a, b = runs.index(row['first']), runs.index(row['second'])
                values[a, b] = values[b, a] = row['ari']
        texts = [['' if np.isnan(value) else f'{value:.2f}' for value in line] for line in values]
        axes = add_panel(figure, left + place * (side + _GAP), bottom, side, side)
        names = list(letters.values())
        matrix(axes, values, texts, names, names)
        axes.set_title(f'clusters of level {level}', fontsize=TEXT_SIZE + 1, color=TEXT_COLOUR, loc='left')
    bottom -= 0.75 + below
    for place, name in enumerate(level_pairs):
        axes = add_panel(figure, left + place * (_PANEL + _GAP), bottom, _PANEL, below)
        rows = {(row['first'], row['second']): row for row in parents if str(row['levels']) == name}
        for position, pair in enumerate(pairs):
            if pair not in rows:
                continue
            axes.plot(rows[pair]['chance'], position, '|', color=CHANCE_COLOUR, markersize=9, markeredgewidth=2)
            axes.plot(rows[pair]['agreement'], position, 'o', color=OBSERVED_COLOUR, markersize=5, clip_on=False)
        plain(axes, '', 'share of matched clusters', grid='x')
        axes.set_title(f'parents, levels {" and ".join(name.split("-"))}', fontsize=TEXT_SIZE + 1, loc='left',
                       color=TEXT_COLOUR)  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(len(pairs) - 0.5, -0.5))
        axes.set_yticks(range(len(pairs)), [f'{letters[a]}, {letters[b]}' for a, b in pairs])
    key = '\n'.join(f'{letter}: {name}' for name, letter in letters.items())
    figure.text(0.15 / width, 0.5 / height, key, fontsize=TEXT_SIZE - 1, color=TEXT_COLOUR, va='bottom')
    figure.text(0.15 / width, 0.1 / height, _NOTE, fontsize=TEXT_SIZE - 1, color=NOTE_COLOUR, va='bottom')
    return save_figure(figure, path)
