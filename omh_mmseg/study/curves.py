"""Pictures of a sweep: metrics along a setting, and runs beside a reference, with the spread over seeds."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from omh_mmseg.study.schedule import EACH_RUNS_REFERENCE, Schedule
from omh_mmseg.study.table import by_seed, reference_values
from omh_mmseg.utils.tables import mean_and_spread
from omh_mmseg.visualization.figures import TEXT_COLOUR, TEXT_SIZE, TITLE_SIZE, add_note, new_figure, save_figure
from omh_mmseg.visualization.panels import add_panel, plain

COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
REFERENCE_COLOUR = '#666666'
STYLES, REFERENCE_STYLES = ('-', '--', '-.'), ((0, (6, 2)), (0, (1, 2)), (0, (4, 1, 1, 1)))
MARKERS = 'osD^v'
_PANEL, _LEFT, _RIGHT, _BELOW, _ABOVE = (4.1, 2.9), 0.72, 0.2, 0.55, 0.3  # inches
_LEGEND_LINE, _ROW, _LETTER, _LINE = 0.155, 0.36, 0.082, 40
_NOTE_HEIGHT, _DODGE = 0.18, 0.012


def draw_figures(rows: Sequence[Mapping[str, Any]], schedule: Schedule, work_dir: str | os.PathLike[str]) -> list[Path]:
    """Draw the figures that a schedule asks for, those that have a value; see `draw_figure`."""
    drawn = [draw_figure(Path(work_dir) / figure['file'], figure, rows, schedule) for figure in schedule.figures]
    return [path for path in drawn if path is not None]


def draw_figure(
    path: str | os.PathLike[str], figure: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], schedule: Schedule
) -> Path | None:
    """Draw a figure that a schedule asks for, from the runs that finished.

    Args:
        path: PNG to write.
        figure: ``kind='curves'``: ``curves`` (entries with ``vary``), ``x_label``, ``log_x``, ``panels`` (dicts with
            ``label``, ``metrics`` and, in place of the figure's, ``references``) and ``references`` (names of runs,
            drawn as bands). Colours tell metrics apart, lines and markers curves. ``kind='effects'``:
            ``metrics`` and ``reference``, a run whose scores are subtracted seed by seed (``'*'``: each run's first
            reference); without it the scores themselves. Either may have a ``title``.
        rows: Of `omh_mmseg.study.runner.run_sweep`.
        schedule: Says what is compared with what.

    Returns:
        ``path``, or None if no run has a value of what is to be drawn.
    """
    if figure['kind'] == 'curves':
        return _draw_curves(path, figure, rows)
    return _draw_effects(path, figure, rows, schedule)


def _draw_curves(
    path: str | os.PathLike[str], figure: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Path | None:
    curves = figure.get('curves') or list(dict.fromkeys(row['curve'] for row in rows if row.get('x') is not None))
    panels = [
        {'references': figure.get('references', ()), **panel}
        for panel in figure['panels']
        if any(_points(rows, curve, metric) for curve in curves for metric in panel['metrics'])
    ]
    if not panels:
        return None
    legend = _LEGEND_LINE * max(len(_panel_keys(panel, curves, rows)) for panel in panels) + 0.05
    above = _ABOVE if figure.get('title') else 0.1
    height = _NOTE_HEIGHT + _BELOW + _PANEL[1] + legend + above
    drawing = new_figure(len(panels) * (_LEFT + _PANEL[0] + _RIGHT), height)
    for place, panel in enumerate(panels):
        left = place * (_LEFT + _PANEL[0] + _RIGHT) + _LEFT
        axes = add_panel(drawing, left, _NOTE_HEIGHT + _BELOW, *_PANEL)
        plain(axes, '', figure.get('x_label', ''), panel.get('label', ''), grid='both')
        log = bool(figure.get('log_x'))
        _draw_panel(axes, panel, curves, rows, log)
        if log:
            axes.set_xscale('log')
        positions = _positions(curves, rows)
        axes.xaxis.set_major_locator(FixedLocator(positions))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        if len(positions) > 7:
            axes.tick_params(axis='x', rotation=45)
        axes.legend(fontsize=TEXT_SIZE - 1, frameon=False, loc='lower left', bbox_to_anchor=(0, 1), borderpad=0.1,
                    labelspacing=0.25)  # fmt: skip
    return _finish(path, drawing, figure, 'Means over seeds; bars and bands are sample standard deviations.')


def _draw_panel(
    axes: Axes, panel: Mapping[str, Any], curves: Sequence[str], rows: Sequence[Mapping[str, Any]], log: bool
) -> None:
    metrics = list(panel['metrics'])
    for index, name in enumerate(panel['references']):
        for metric, values in _reference_lines(panel, name, rows):
            mean, spread = mean_and_spread(list(values.values()))
            colour = COLOURS[metrics.index(metric) % len(COLOURS)] if metric in metrics else REFERENCE_COLOUR
            axes.axhspan(mean - spread, mean + spread, color=colour, alpha=0.1, linewidth=0)
            axes.axhline(mean, color=colour, linewidth=1, linestyle=REFERENCE_STYLES[index % len(REFERENCE_STYLES)],
                         label=f'{name}, {_label(metric)}')  # fmt: skip
    series = [(metric, curve) for metric in metrics for curve in curves if _points(rows, curve, metric)]
    positions = _positions(curves, rows)
    for place, (metric, curve) in enumerate(series):
        points = _points(rows, curve, metric)
        means, spreads = zip(*(mean_and_spread(values) for values in points.values()))
        shift = _DODGE * (place - (len(series) - 1) / 2)
        line = curves.index(curve)
        axes.errorbar(
            [_shifted(x, shift, positions, log) for x in points], means, spreads, linewidth=1.3, capsize=2.5,
            color=COLOURS[metrics.index(metric) % len(COLOURS)], marker=MARKERS[line % len(MARKERS)], markersize=4,
            linestyle=STYLES[line % len(STYLES)],
            label=_label(metric) if len(curves) == 1 else f'{curve}, {_label(metric)}',
        )  # fmt: skip


def _draw_effects(
    path: str | os.PathLike[str], figure: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], schedule: Schedule
) -> Path | None:
    reference, metrics = figure.get('reference'), figure['metrics']
    bases: dict[str, str | None] = {name: reference for name in dict.fromkeys(row['name'] for row in rows)}
    if reference == EACH_RUNS_REFERENCE:
        bases = {name: next(iter(schedule.references_of(name)), name) for name in bases}
    names = [name for name, base in bases.items() if name != base]
    effects = {(name, metric): _effects(rows, name, bases[name], metric) for name in names for metric in metrics}
    names = [name for name in names if any(effects[name, metric] for metric in metrics)]
    if not names:
        return None
    labels = [textwrap.fill(name, _LINE, break_on_hyphens=False) for name in names]
    lines = max(label.count('\n') + 1 for label in labels)
    left = 0.25 + _LETTER * min(max(map(len, names)), _LINE)
    panel = max(_ROW * max(lines / 2, 1) * len(names), 0.8)
    above = (_ABOVE if figure.get('title') else 0.1) + 0.3
    drawing = new_figure(left + 5.2 + _RIGHT, _NOTE_HEIGHT + _BELOW + panel + above)
    axes = add_panel(drawing, left, _NOTE_HEIGHT + _BELOW, 5.2, panel)
    kinds = ' and '.join(dict.fromkeys(metric.rpartition('/')[2] for metric in metrics))
    subtrahend = 'its reference' if reference == EACH_RUNS_REFERENCE else reference
    plain(axes, '', f'{kinds} minus that of {subtrahend}' if reference else kinds, grid='both')
    for index, metric in enumerate(metrics):
        shift = 0.55 * ((index + 0.5) / len(metrics) - 0.5)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        drawn = [(row, effects[name, metric]) for row, name in enumerate(names) if effects[name, metric]]
        for row, values in drawn:
            mean, spread = mean_and_spread(values)
            axes.plot(values, [row + shift] * len(values), marker, color=colour, markersize=3, alpha=0.35)
            axes.errorbar(mean, row + shift, xerr=spread, color=colour, marker=marker, markersize=5, capsize=2.5,
                          linestyle='none', label=_label(metric) if row == drawn[0][0] else None)  # fmt: skip
    if reference:
        axes.axvline(0, color=REFERENCE_COLOUR, linewidth=1)
    axes.set_yticks(range(len(names)), labels, fontsize=TEXT_SIZE, color=TEXT_COLOUR)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis='y', length=0)
    axes.legend(fontsize=TEXT_SIZE - 1, ncols=3, frameon=False, loc='lower left', bbox_to_anchor=(0, 1))
    subtracted = ', minus the reference with the same seed' if reference else ''
    note = f'Pale: a seed{subtracted}. Bars: mean and standard deviation over seeds.'
    return _finish(path, drawing, figure, note)


def _finish(path: str | os.PathLike[str], drawing: Figure, figure: Mapping[str, Any], note: str) -> Path:
    """Add the title that a schedule wants and a note, and save."""
    if figure.get('title'):
        width, height = drawing.get_size_inches()
        drawing.text(0.1 / width, 1 - 0.08 / height, figure['title'], fontsize=TITLE_SIZE, color=TEXT_COLOUR, va='top')
    add_note(drawing, note, left=0.1, bottom=0.08)
    return save_figure(drawing, path)


def _effects(rows: Sequence[Mapping[str, Any]], name: str, reference: str | None, metric: str) -> list[float]:
    values = by_seed(rows, name, metric)
    if not reference:
        return list(values.values())
    base = reference_values(rows, reference, metric)[1]
    return [value - base[seed] for seed, value in values.items() if seed in base]


def _points(rows: Sequence[Mapping[str, Any]], curve: str, metric: str) -> dict[float, list[float]]:
    """Values over seeds by place on the curve, in its order."""
    places = {row['name']: float(row['x']) for row in rows if row.get('curve') == curve and row.get('x') is not None}
    points: dict[float, list[float]] = {}
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        values = list(by_seed(rows, name, metric).values())
        if values:
            points.setdefault(place, []).extend(values)
    return points


def _reference_lines(
    panel: Mapping[str, Any], name: str, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[str, dict[int, float]]]:
    """The metrics that a reference has of a panel's, each once."""
    lines = dict(reference_values(rows, name, metric) for metric in panel['metrics'])
    return [(metric, values) for metric, values in lines.items() if values]


def _panel_keys(panel: Mapping[str, Any], curves: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the panel's legend has a line for."""
    lines = [metric for name in panel['references'] for metric, _ in _reference_lines(panel, name, rows)]
    return lines + [metric for metric in panel['metrics'] for curve in curves if _points(rows, curve, metric)]


def _positions(curves: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[float]:
    return sorted({row['x'] for row in rows if row.get('curve') in curves and row.get('x') is not None})


def _shifted(x: float, share: float, positions: Sequence[float], log: bool) -> float:
    """Move a point by a share of the axis, so that the bars of several curves do not hide each other."""
    if log:
        return x * (positions[-1] / positions[0]) ** share
    return x + share * (positions[-1] - positions[0])


def _label(metric: str) -> str:
    """``'level1/mIoU'`` as ``'level 1 mIoU'``, ``'train/omh_sparsity_12'`` as ``'sparsity, levels 1 and 2'``."""
    label = metric.removeprefix('train/').removeprefix('omh_')
    label = re.sub(r'^used_(\d)$', r'level \1', label)
    label = re.sub(r'_(\d)(\d)$', r', levels \1 and \2', label)
    return re.sub(r'level(\d)/', r'level \1 ', label).replace('/', ' ').replace('_', ' ')
