"""Sparsity of plans, effective parents and clusters in use, as curves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omh_mmseg.visualization.colours import distinct_colours, hex_colour
from omh_mmseg.visualization.figures import TEXT_SIZE, add_note, new_figure, save_figure
from omh_mmseg.visualization.panels import add_panel, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL, _GAP, _LEFT, _TOP, _BOTTOM = (3.3, 2.5), 0.75, 0.7, 0.75, 0.85  # inches
_TRAINING = (
    ('sparsity_', 'plan entries above 1 % of their row', 'share of the plan'),
    ('parents_mean_', 'effective parents of a finer cluster', 'mean over clusters'),
    ('used_', 'clusters that win a position of the batch', 'share of the level'),
)
_SWEEP = (
    ('sparsity', *_TRAINING[0][1:]),
    ('parents_mean', *_TRAINING[1][1:]),
    ('parents_max', 'the same of the cluster with most', 'maximum over clusters'),
)


def draw_plan_training(path: str | os.PathLike[str], runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Draw what runs logged of their plans and clusters over the steps of the training.

    Args:
        path: PNG to write.
        runs: Rows of `omh_mmseg.analysis.plans.training_figures` by name of the run. With several, each is a
            thin line and their mean, over the steps that all have, a thick one.

    Returns:
        ``path``.

    Raises:
        ValueError: There is no run.
    """
    if not runs:
        raise ValueError('no run to draw')
    figure = _figure(len(_TRAINING))
    for place, (prefix, title, label) in enumerate(_TRAINING):
        axes = _panel(figure, place, title, 'step', label)
        keys = sorted({key for rows in runs.values() for row in rows for key in row if key.startswith(prefix)})
        for key, shade in zip(keys, map(hex_colour, distinct_colours(len(keys)))):
            curves = [{row['step']: row[key] for row in rows if key in row} for rows in runs.values()]
            width, alpha = (1.6, 1) if len(curves) == 1 else (0.6, 0.5)
            for curve in curves:
                axes.plot(list(curve), list(curve.values()), color=shade, linewidth=width, alpha=alpha)
            if len(curves) > 1:
                common = sorted(set.intersection(*(set(curve) for curve in curves)))
                means = [np.mean([curve[step] for curve in curves]) for step in common]
                axes.plot(common, means, color=shade, linewidth=1.8)
            axes.plot([], [], color=shade, linewidth=1.8, label=_name(key.removeprefix(prefix)))
        _finish(axes, len(keys), share=not prefix.startswith('parents'))
    several = f'thin: {len(runs)} runs, thick: their mean. ' if len(runs) > 1 else ''
    note = f'{several}A sparse plan gives each finer cluster one parent; near 1 (left) the plan says nothing.'
    add_note(figure, note, size=TEXT_SIZE)
    return save_figure(figure, path)


def draw_plan_sweep(
    path: str | os.PathLike[str], solved: Sequence[Mapping[str, Any]], trained: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """Draw sparsity and effective parents against the entropy weight.

    Args:
        path: PNG to write.
        solved: Rows of `figures_by_entropy_weight`, of one or several checkpoints: lines are means over them, bands
            reach from the smallest to the largest.
        trained: Rows of the same columns from runs that were trained at a weight of their own, drawn as discs.

    Returns:
        ``path``.

    Raises:
        ValueError: There is no row without an error.
    """
    solved = [row for row in solved if 'sparsity' in row]
    if not solved and not trained:
        raise ValueError('no solved plan to draw')
    figure = _figure(len(_SWEEP))
    pairs = sorted({str(row['levels']) for row in [*solved, *trained]})
    for place, (key, title, label) in enumerate(_SWEEP):
        axes = _panel(figure, place, title, 'entropy weight', label)
        for pair, shade in zip(pairs, map(hex_colour, distinct_colours(len(pairs)))):
            rows = [row for row in solved if str(row['levels']) == pair]
            weights = sorted({row['entropy_weight'] for row in rows})
            values = [[row[key] for row in rows if row['entropy_weight'] == weight] for weight in weights]
            axes.plot(weights, list(map(np.mean, values)), color=shade, linewidth=1.6, marker='.', label=_name(pair))
            if any(len(checkpoints) > 1 for checkpoints in values):
                lowest, highest = list(map(min, values)), list(map(max, values))
                axes.fill_between(weights, lowest, highest, color=shade, alpha=0.2, linewidth=0)
            discs = [row for row in trained if str(row['levels']) == pair and key in row]
            axes.plot([row['entropy_weight'] for row in discs], [row[key] for row in discs], 'o', color=shade,
                      markersize=5, markeredgecolor='white', markeredgewidth=0.6)  # fmt: skip
        axes.set_xscale('log')
        _finish(axes, len(pairs), share=key == 'sparsity')
    lines = 'lines: plans of finished centres solved anew, bands: from the lowest to the highest checkpoint'
    notes = [lines] * bool(solved) + ['discs: runs trained at this weight, at their end'] * bool(trained)
    add_note(figure, '; '.join(notes), size=TEXT_SIZE)
    return save_figure(figure, path)


def _figure(panels: int) -> Figure:
    width = _LEFT + panels * _PANEL[0] + (panels - 1) * _GAP + 0.2
    return new_figure(width, _PANEL[1] + _TOP + _BOTTOM)


def _panel(figure: Figure, place: int, title: str, x_label: str, y_label: str) -> Axes:
    axes = add_panel(figure, _LEFT + place * (_PANEL[0] + _GAP), _BOTTOM, *_PANEL)
    plain(axes, '', x_label, y_label, grid='both')
    axes.set_title(title, fontsize=TEXT_SIZE + 1, loc='left', pad=20)
    return axes


def _finish(axes: Axes, entries: int, share: bool) -> None:
    axes.set_ylim(0, 1.03 if share else None)
    if entries:
        axes.legend(
            fontsize=TEXT_SIZE - 1, ncols=entries, frameon=False, loc='lower left', bbox_to_anchor=(-0.02, 0.985),
            handlelength=1.2, columnspacing=1.0, borderaxespad=0.2,
        )  # fmt: skip


def _name(pair: str) -> str:
    """'12' -> 'levels 1, 2'; '3' -> 'level 3'."""
    return f'level {pair}' if len(pair) == 1 else f'levels {pair[: len(pair) // 2]}, {pair[len(pair) // 2 :]}'
