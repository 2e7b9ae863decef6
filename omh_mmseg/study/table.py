"""The tables of a sweep: one row per run, and means with spreads and differences per name."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omh_mmseg.apis.refit import REFIT
from omh_mmseg.study.schedule import Schedule, SweepRun
from omh_mmseg.utils.files import write_text
from omh_mmseg.utils.tables import markdown_table, mean_and_spread, mean_cell, summarise, write_csv

SHOWN = ('/mIoU', '/aAcc')
PROBE = 'probe'
COUNTS = ('/clusters', '/effective')
"""Scores without labels, of a run whose refit is asked for: clusters in use, and their effective number."""
MEASURES = ('ms_per_step', 'ms_per_image', 'seconds', 'memory', 'backbone_parameters', 'trained_parameters')
IDENTITY = ('name', 'config', 'backbone', 'overrides', 'seed', 'commit', 'status', 'error', 'seconds', 'ms_per_step',
            'ms_per_image', 'backbone_parameters', 'trained_parameters', 'memory', 'memory_of', 'threads',
            'folder')  # fmt: skip
DIGITS = 4
_NOTE = (
    'Differences are means over the seeds that both have, ± the sample standard deviation of the difference, then the '
    'standard error of the mean (se), with the number of seeds in brackets. **above** and **below**: by more than the '
    "larger of the two runs' spreads over these seeds, whose multiple follows. A head that "
    'the reference lacks is compared with its cluster probe.'
)


@dataclass(frozen=True)
class Difference:
    """Scores minus those of a reference with the same seeds.

    Attributes:
        mean: Over the seeds that both have.
        spread: Sample standard deviation over those seeds; 0 of a single one.
        seeds: How many there are.
        spreads: The mean in units of the larger of the two runs' spreads over these seeds; None without one.
    """

    mean: float
    spread: float
    seeds: int
    spreads: float | None

    @property
    def mark(self) -> str:
        """``'above'`` or ``'below'`` the spread, ``'within'`` it, or nothing if there is none."""
        if self.spreads is None:
            return ''
        return 'within' if abs(self.spreads) <= 1 else 'above' if self.spreads > 0 else 'below'

    def __str__(self) -> str:
        error = self.spread / math.sqrt(self.seeds)
        text = f'{self.mean:+.2f}' + (f' ± {self.spread:.2f}, se {error:.2f}' if self.seeds > 1 else '')
        text += f' ({self.seeds})'
        if self.spreads is None:
            return text
        mark = self.mark if self.mark == 'within' else f'**{self.mark}**'
        return f'{text} {mark} {abs(self.spreads):.1f}'


def compare(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """Compare scores by seed with those of a reference; None if they share no seed."""
    seeds = [seed for seed in values if seed in reference]
    if not seeds:
        return None
    mean, spread = mean_and_spread([values[seed] - reference[seed] for seed in seeds])
    largest = max(mean_and_spread([side[seed] for seed in seeds])[1] for side in (values, reference))
    return Difference(mean, spread, len(seeds), mean / largest if largest else None)


def shown_row(row: Mapping[str, Any], run: SweepRun, asked: Sequence[str] = ()) -> dict[str, Any]:
    """A run's result as the row of one entry of the schedule.

    Args:
        row: Of the trained run; scores of a protocol or a refit have its name and a colon before theirs.
        run: The entry, which may show another run than its own.
        asked: Protocols, and ``'refit'``, that the schedule asks for; another one may have left more in the result.
    """
    scores = {
        name.removeprefix(REFIT) if run.refit else name: value
        for name, value in row.get('scores', {}).items()
        if name.startswith(REFIT) == run.refit
    }
    scores = {name: one for name, one in scores.items() if ':' not in name or name.partition(':')[0] in asked}
    if 'refit' not in asked:
        scores = {name: one for name, one in scores.items() if not name.endswith(COUNTS)}
    if run.heads:
        of_heads = tuple(f'{head}/' for head in run.heads)
        scores = {name: one for name, one in scores.items() if name.rpartition(':')[2].startswith(of_heads)}
    if run.of:
        row = {**row, 'name': run.name, 'curve': run.name, 'x': None, 'figures': {}}
    return {**row, 'scores': scores} if 'scores' in row else dict(row)


def by_seed(rows: Sequence[Mapping[str, Any]], name: str, metric: str) -> dict[int, float]:
    """Values of a run's metric, figure or measure by seed, where it has them."""
    values = {row['seed']: _flat(row).get(metric) for row in rows if row['name'] == name}
    return {seed: float(value) for seed, value in values.items() if isinstance(value, (int, float))}


def reference_values(rows: Sequence[Mapping[str, Any]], reference: str, metric: str) -> tuple[str, dict[int, float]]:
    """What a metric is compared with: that of the reference or, where it lacks the head, its probe's.

    Returns:
        The name of the metric and its values by seed; none for metrics other than scores that it lacks.
    """
    values = by_seed(rows, reference, metric)
    protocol, colon, rest = metric.rpartition(':')
    head, slash, kind = rest.partition('/')
    if values or not slash or head in ('train', 'linear'):
        return metric, values
    probe = f'{protocol}{colon}{PROBE}/{kind}'
    return probe, by_seed(rows, reference, probe)


def table_metrics(rows: Sequence[Mapping[str, Any]], schedule: Schedule) -> list[str]:
    """The columns of the table: those that the schedule asks for, else mIoU and aAcc of everything."""
    scores = dict.fromkeys(metric for row in rows for metric in row.get('scores', {}))
    return list(schedule.columns) or [metric for metric in scores if metric.endswith(SHOWN)]


def sweep_summary(rows: Sequence[Mapping[str, Any]], schedule: Schedule) -> list[dict[str, Any]]:
    """One row per name: means, spreads (sample standard deviations), numbers of seeds and differences.

    A row has ``name``, ``seeds`` (finished ones), for every score, figure and measure its mean by name and its spread
    by ``<name> spread`` (0 for a single seed; both NaN where the run has none), for every reference
    ``<name> - <reference>`` with `` spread``, `` seeds``, `` in spreads`` and `` mark``, and ``error`` (empty without).
    """
    measured = dict.fromkeys(name for row in rows for part in ('scores', 'figures') for name in row.get(part, {}))
    summary = []
    for means in summarise(list(map(_flat, rows)), ['name'], [*measured, *MEASURES]) if rows else []:
        name = means['name']
        runs = [row for row in rows if row['name'] == name]
        entry = dict(name=name, seeds=sum(row['status'] == 'finished' for row in runs))
        entry |= {key: value for key, value in means.items() if key not in ('name', 'runs')}
        for reference in schedule.references_of(name):
            for metric in measured:
                difference = _difference(rows, name, reference, metric)
                if difference is not None:
                    key = f'{metric} - {reference}'
                    entry |= {key: difference.mean, f'{key} spread': difference.spread,
                              f'{key} seeds': difference.seeds, f'{key} in spreads': difference.spreads,
                              f'{key} mark': difference.mark}  # fmt: skip
        errors = [f'seed {row["seed"]}: {row["error"]}' for row in runs if row.get('error')]
        summary.append(entry | dict(error='; '.join(errors)))
    return summary


def sweep_table(rows: Sequence[Mapping[str, Any]], schedule: Schedule) -> str:
    """Means with spreads, and below them the differences to each reference, in Markdown."""
    metrics = table_metrics(rows, schedule)
    parts = [f'# {schedule.title}'] if schedule.title else []
    parts.append(_means(rows, schedule, metrics) if rows else 'No run has ended yet.')
    references = schedule.all_references()
    for reference in references:
        differences = {
            name: [_difference(rows, name, reference, metric) for metric in metrics]
            for name in dict.fromkeys(row['name'] for row in rows)
            if reference in schedule.references_of(name)
        }
        body = [
            {'': name, **{_head(metric): str(cell or '-') for metric, cell in zip(metrics, compared)}}
            for name, compared in differences.items()
            if any(compared)
        ]
        if body:
            parts += [f'Difference to {reference}, by seed', markdown_table(body)]
    if references:
        parts.append(_NOTE)
    commits = list(dict.fromkeys(row['commit'] for row in rows if row['status'] == 'finished'))
    if commits:
        parts.append(f'Commit {", ".join(commits)}.')
    return '\n\n'.join(parts) + '\n'


def write_tables(rows: Sequence[Mapping[str, Any]], schedule: Schedule, work_dir: str | os.PathLike[str]) -> list[Path]:
    """Write ``runs.csv``, one row per run, ``table.csv``, that of `sweep_summary`, and ``table.md``."""
    folder = Path(work_dir)
    runs = [dict.fromkeys(IDENTITY) | _flat(row) for row in rows]
    return [
        write_csv(folder / 'runs.csv', runs, DIGITS, IDENTITY),
        write_csv(folder / 'table.csv', sweep_summary(rows, schedule), DIGITS, ('name', 'seeds', 'error')),
        write_text(folder / 'table.md', sweep_table(rows, schedule)),
    ]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was, how it ended, then scores and figures."""
    return {key: row[key] for key in IDENTITY if key in row} | row.get('figures', {}) | row.get('scores', {})


def _difference(rows: Sequence[Mapping[str, Any]], name: str, reference: str, metric: str) -> Difference | None:
    values = by_seed(rows, name, metric)
    return compare(values, reference_values(rows, reference, metric)[1]) if values else None


def _means(rows: Sequence[Mapping[str, Any]], schedule: Schedule, metrics: Sequence[str]) -> str:
    timed = any(row.get('ms_per_image') for row in rows)
    failing = any(row.get('error') for row in rows)
    memory = '/'.join(dict.fromkeys(row['memory_of'] for row in rows if row.get('memory_of'))) or 'process'
    body = []
    for entry in sweep_summary(rows, schedule):
        line = {'': entry['name'], 'seeds': str(entry['seeds'])}
        for metric in metrics:
            mean, spread = (entry.get(key, float('nan')) for key in (metric, f'{metric} spread'))
            digits = 3 if metric.startswith('train/') else 2
            line[_head(metric)] = mean_cell(mean, spread, entry['seeds'], digits, '±') or '-'
        if timed:
            sizes = [_number(entry[f'{part}_parameters'] / 1e6, 2) for part in ('backbone', 'trained')]
            line['frozen / trained parameters (M)'] = ' / '.join(sizes)
            line['ms per image'] = _number(entry['ms_per_image'], 1)
        line['ms per step'] = _number(entry['ms_per_step'], 1)
        line[f'memory of the {memory} (MiB)'] = _number(entry['memory'], 0)
        body.append(line | (dict(error=entry['error']) if failing else {}))
    return markdown_table(body)


def _head(metric: str) -> str:
    return metric.removeprefix('train/')


def _number(value: float, digits: int) -> str:
    return f'{value:.{digits}f}' if value == value else '-'
