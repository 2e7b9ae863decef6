"""The tables of a sweep: one row per run, and means with spreads and differences per name."""

from __future__ import annotations

import csv
import io
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omh_mmseg.study.plan import SweepPlan
from omh_mmseg.study.process import write_text

SHOWN = ('/mIoU', '/aAcc')
HEAD_OF_HOSTS = 'probe'
MEASURES = ('ms_per_step', 'seconds', 'memory')
IDENTITY = ('name', 'config', 'overrides', 'seed', 'commit', 'status', 'error', 'seconds', 'ms_per_step', 'memory',
            'memory_of', 'threads', 'folder')  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """Scores minus those of a reference with the same seeds.

    Attributes:
        mean: Over the seeds that both have.
        spread: Sample standard deviation over those seeds; None of a single one.
        seeds: How many there are.
        spreads: The mean in units of the larger of the two runs' own spreads over these seeds; None without one.
    """

    mean: float
    spread: float | None
    seeds: int
    spreads: float | None

    @property
    def mark(self) -> str:
        """``'above'`` or ``'below'`` the spread, ``'within'`` it, or nothing if there is none."""
        if self.spreads is None:
            return ''
        return 'within' if abs(self.spreads) <= 1 else 'above' if self.spreads > 0 else 'below'


def compare(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """Compare scores by seed with those of a reference; None if they share no seed."""
    seeds = [seed for seed in values if seed in reference]
    if not seeds:
        return None
    pairs = [(values[seed], reference[seed]) for seed in seeds]
    changes = [value - base for value, base in pairs]
    mean = statistics.mean(changes)
    if len(seeds) == 1:
        return Difference(mean, None, 1, None)
    largest = max(statistics.stdev(own) for own in zip(*pairs))
    in_spreads = mean / largest if largest else None
    return Difference(mean, statistics.stdev(changes), len(seeds), in_spreads)


def by_seed(rows: Sequence[Mapping[str, Any]], name: str, metric: str) -> dict[int, float]:
    """Values of a run's metric, figure or measure by seed, where it has them."""
    found = {}
    for row in rows:
        if row['name'] == name:
            value = {**row.get('figures', {}), **row.get('scores', {})}.get(metric, row.get(metric))
            if isinstance(value, (int, float)):
                found[row['seed']] = float(value)
    return found


def reference_values(rows: Sequence[Mapping[str, Any]], reference: str, metric: str) -> tuple[str, dict[int, float]]:
    """What a metric is compared with: the reference's own, or where it lacks that head, its probe's.

    Returns:
        The name of the metric and its values by seed; none for metrics other than scores that it lacks.
    """
    own = by_seed(rows, reference, metric)
    protocol, colon, rest = metric.rpartition(':')
    head, slash, kind = rest.partition('/')
    if own or not slash or head in ('train', 'linear'):
        return metric, own
    probe = f'{protocol}{colon}{HEAD_OF_HOSTS}/{kind}'
    return probe, by_seed(rows, reference, probe)


def table_metrics(rows: Sequence[Mapping[str, Any]], plan: SweepPlan) -> list[str]:
    """The columns of the table: those that the plan asks for, else mIoU and aAcc of everything."""
    scores = dict.fromkeys(metric for row in rows for metric in row.get('scores', {}))
    return list(plan.columns) or [metric for metric in scores if metric.endswith(SHOWN)]


def summarise(rows: Sequence[Mapping[str, Any]], plan: SweepPlan) -> list[dict[str, Any]]:
    """One row per name: means, spreads (sample standard deviations), numbers of seeds and differences.

    A row has ``name``, ``seeds`` (finished ones), for every score, figure and measure its mean by name and its spread
    by ``<name> spread`` (None for a single seed), for every reference ``<name> - <reference>`` with `` spread``,
    `` seeds``, `` in spreads`` and `` mark``, and ``error`` (empty without).
    """
    metrics = list(dict.fromkeys(name for row in rows for part in ('scores', 'figures') for name in row.get(part, {})))
    found = []
    for name in dict.fromkeys(row['name'] for row in rows):
        own = [row for row in rows if row['name'] == name]
        summary: dict[str, Any] = dict(name=name, seeds=sum(row['status'] == 'finished' for row in own))
        for metric in (*metrics, *MEASURES):
            values = by_seed(rows, name, metric)
            if values:
                summary[metric] = statistics.mean(values.values())
                summary[f'{metric} spread'] = statistics.stdev(values.values()) if len(values) > 1 else None
            for reference in plan.references_of(name):
                compared = _difference(rows, name, reference, metric)
                if compared is not None and metric not in MEASURES:
                    key = f'{metric} - {reference}'
                    summary |= {key: compared.mean, f'{key} spread': compared.spread, f'{key} seeds': compared.seeds,
                                f'{key} in spreads': compared.spreads, f'{key} mark': compared.mark}  # fmt: skip
        errors = [f'seed {row["seed"]}: {row["error"]}' for row in own if row.get('error')]
        found.append(summary | dict(error='; '.join(errors)))
    return found


def sweep_table(rows: Sequence[Mapping[str, Any]], plan: SweepPlan) -> str:
    """Means with spreads, and below them the differences to each reference, in markdown."""
    metrics, names = table_metrics(rows, plan), list(dict.fromkeys(row['name'] for row in rows))
    memory = '/'.join(dict.fromkeys(row['memory_of'] for row in rows if row.get('memory_of'))) or 'process'
    heads = ['', 'seeds', *map(_head, metrics), 'ms per step', f'memory of the {memory} (MiB)']
    failing = any(row.get('error') for row in rows)
    body = []
    for summary in summarise(rows, plan):
        cells = [summary['name'], str(summary['seeds']), *(_mean(summary, metric) for metric in metrics)]
        cells += [_number(summary.get('ms_per_step'), 1), _number(summary.get('memory'), 0)]
        body.append([*cells, summary['error']] if failing else cells)
    parts = [f'# {plan.title}\n\n' if plan.title else '', _markdown([*heads, 'error'] if failing else heads, body)]
    references = plan.all_references()
    for reference in references:
        body = []
        for name in names:
            found = [_difference(rows, name, reference, metric) for metric in metrics]
            if reference in plan.references_of(name) and any(found):
                body.append([name, *map(_told_difference, found)])
        if body:
            parts.append(f'\nDifference to {reference}, by seed\n\n' + _markdown(['', *map(_head, metrics)], body))
    if references:
        parts.append(f'\n{_NOTE}\n')
    commits = list(dict.fromkeys(row['commit'] for row in rows if row['status'] == 'finished'))
    if commits:
        parts.append(f'\nCommit {", ".join(commits)}.\n')
    return ''.join(parts)


def runs_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row per run as CSV: what it was, how it ended, then scores and figures."""
    plain = [
        {**{key: row.get(key) for key in IDENTITY}, **row.get('scores', {}), **row.get('figures', {})} for row in rows
    ]
    return _csv(plain)


def write_sweep(
    rows: Sequence[Mapping[str, Any]], plan: SweepPlan, work_dir: str | os.PathLike[str], figures: bool = True
) -> list[Path]:
    """Write ``runs.csv``, ``table.csv`` and ``table.md`` and, if asked for, those of the plan's figures with values."""
    folder = Path(work_dir)
    paths = [
        write_text(folder / 'runs.csv', runs_table(rows)),
        write_text(folder / 'table.csv', _csv(summarise(rows, plan))),
        write_text(folder / 'table.md', sweep_table(rows, plan)),
    ]
    if figures:
        from omh_mmseg.study.curves import draw_figure  # drawing is dear to import, and not always asked

        drawn = (draw_figure(folder / figure['file'], figure, rows, plan) for figure in plan.figures)
        paths += [path for path in drawn if path is not None]
    return paths


_NOTE = (
    'Differences are means over the seeds that both have, ± the sample standard deviation of the difference, with the '
    "number of seeds in brackets. **above** and **below**: by more than the larger of the two runs' own spreads over "
    'these seeds, whose multiple follows. A head that the reference lacks is compared with its cluster probe.'
)


def _difference(rows: Sequence[Mapping[str, Any]], name: str, reference: str, metric: str) -> Difference | None:
    values = by_seed(rows, name, metric)
    return compare(values, reference_values(rows, reference, metric)[1]) if values else None


def _told_difference(found: Difference | None) -> str:
    if found is None:
        return '-'
    told = f'{found.mean:+.2f}' + ('' if found.spread is None else f' ± {found.spread:.2f}') + f' ({found.seeds})'
    if not found.mark or found.spreads is None:
        return told
    mark = found.mark if found.mark == 'within' else f'**{found.mark}**'
    return f'{told} {mark} {abs(found.spreads):.1f}'


def _mean(summary: Mapping[str, Any], metric: str) -> str:
    if metric not in summary:
        return '-'
    digits = 3 if metric.startswith('train/') else 2
    spread = summary.get(f'{metric} spread')
    return f'{summary[metric]:.{digits}f}' + ('' if spread is None else f' ± {spread:.{digits}f}')


def _head(metric: str) -> str:
    return metric.removeprefix('train/').replace('|', '\\|')


def _number(value: float | None, digits: int) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def _markdown(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [f'| {" | ".join(heads)} |', f'|{"---|" * len(heads)}']
    lines += [f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in row)} |' for row in body]
    return '\n'.join(lines) + '\n'


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator='\n')
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
