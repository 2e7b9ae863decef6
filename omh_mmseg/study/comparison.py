"""Scores of several backbones side by side."""

from __future__ import annotations

import os
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omh_mmseg.visualization.figures import NOTE_COLOUR, TEXT_COLOUR, TEXT_SIZE, TITLE_SIZE, new_figure, save_figure

SCORE_SUFFIX = '/mIoU'
TRAINED_COLOUR, RANDOM_COLOUR = '#0072b2', '#999999'
MARKERS = 'os^Dv'
_ROW, _MARGIN, _LETTER, _SMALLEST = 0.42, 0.85, 0.085, 7.2  # inches
_LINE = 36  # letters
_PANELS, _GAP = (4.6, 1.8), 0.3
_NOTE = 'A point is a run, a bar the mean of its seeds. Grey: random weights, the floor. The linear probe uses labels.'


def draw_comparison(path: str | os.PathLike[str], runs: Sequence[Mapping[str, Any]]) -> Path:
    """Draw the mIoU of every run, by head, and the time per image of every backbone.

    Args:
        path: PNG to write.
        runs: Of `omh_mmseg.study.backbones.compare_backbones`; failed ones leave their row empty.

    Returns:
        ``path``.

    Raises:
        ValueError: No run has scores.
    """
    scored = [run for run in runs if run.get('scores')]
    if not scored:
        raise ValueError('no run has scores, so that there is nothing to draw')
    names = list(dict.fromkeys(run['backbone'] for run in runs))
    heads = list(dict.fromkeys(key for run in scored for key in run['scores'] if key.endswith(SCORE_SUFFIX)))
    labels = [textwrap.fill(name, _LINE, break_on_hyphens=False) for name in names]
    lines = max(label.count('\n') + 1 for label in labels)
    left = 0.3 + _LETTER * min(max(map(len, names)), _LINE)
    width = max(left + sum(_PANELS) + _GAP + 0.3, _SMALLEST)
    panel = max(_ROW * max(lines / 2, 1) * len(names), 0.8)
    height = panel + _MARGIN + 0.4
    figure = new_figure(width, height)
    box = (_MARGIN / height, panel / height)
    scores = figure.add_axes((left / width, box[0], _PANELS[0] / width, box[1]))
    times = figure.add_axes(((left + _PANELS[0] + _GAP) / width, box[0], _PANELS[1] / width, box[1]))
    for row, name in enumerate(names):
        own = [run for run in scored if run['backbone'] == name]
        if not own:
            scores.text(0.02, row, 'failed', transform=scores.get_yaxis_transform(), fontsize=TEXT_SIZE, va='center',
                        color=NOTE_COLOUR)  # fmt: skip
            continue
        colour = RANDOM_COLOUR if own[0]['random'] else TRAINED_COLOUR
        for place, head in enumerate(heads):
            shift = 0.5 * ((place + 0.5) / len(heads) - 0.5)
            values = [run['scores'][head] for run in own if head in run['scores']]
            marker = MARKERS[place % len(MARKERS)]
            scores.plot(values, [row + shift] * len(values), marker, color=colour, markersize=4, alpha=0.7)
            if values:
                scores.plot([statistics.mean(values)] * 2, [row + shift - 0.1, row + shift + 0.1], color=colour)
        times.barh(row, statistics.median(run['milliseconds'] for run in own), height=0.5, color=colour)
    for place, head in enumerate(heads):
        marker = MARKERS[place % len(MARKERS)]
        scores.plot([], [], marker, color=TEXT_COLOUR, markersize=4, label=head.removesuffix(SCORE_SUFFIX))
    scores.legend(fontsize=TEXT_SIZE - 1, ncols=len(heads), frameon=False, loc='lower left', bbox_to_anchor=(0, 1))
    scores.set_yticks(range(len(names)), labels, fontsize=TEXT_SIZE, color=TEXT_COLOUR)
    times.set_yticks([])
    for axes, label in ((scores, 'mIoU (%)'), (times, 'ms per image')):
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel(label, fontsize=TEXT_SIZE, color=TEXT_COLOUR)
        axes.tick_params(labelsize=TEXT_SIZE - 1, length=2)
        axes.grid(axis='x', linewidth=0.4, color='#dddddd')
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set(linewidth=0.5, color='#999999')
    times.set_title('prediction', fontsize=TITLE_SIZE - 1, color=TEXT_COLOUR, loc='left')
    figure.text(0.15 / width, 0.12 / height, _NOTE, fontsize=TEXT_SIZE - 1, color=NOTE_COLOUR, va='bottom')
    return save_figure(figure, path)
