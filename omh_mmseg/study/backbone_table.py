"""The table and the files of a comparison of backbones."""

from __future__ import annotations

import csv
import io
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omh_mmseg.study.comparison import draw_comparison
from omh_mmseg.utils.files import replaced_when_complete


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per backbone: means and spreads (sample standard deviations) over its seeds.

    A row has ``backbone``, ``runs`` (finished ones), the metrics' means by name and their spreads by ``<name> spread``
    (None for a single run), the measures of `compare_backbones`, and ``error`` (empty without).
    """
    rows = []
    for name in dict.fromkeys(run['backbone'] for run in runs):
        own = [run for run in runs if run['backbone'] == name]
        done = [run for run in own if not run.get('error')]
        row: dict[str, Any] = dict(backbone=name, random=own[0]['random'], runs=len(done))
        for metric in _metrics(done):
            values = [run['scores'][metric] for run in done if metric in run['scores']]
            row[metric] = statistics.mean(values)
            row[f'{metric} spread'] = statistics.stdev(values) if len(values) > 1 else None
        if done:
            row.update({key: done[0][key] for key in ('backbone_parameters', 'trained_parameters', 'memory_of')})
            row['milliseconds'] = statistics.median(run['milliseconds'] for run in done)
            row['memory'] = max(run['memory'] for run in done)
        errors = [f'seed {run["seed"]}: {run["error"]}' for run in own if run.get('error')]
        rows.append(row | dict(error='; '.join(errors)))
    return rows


def comparison_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """`summarise` as a table in markdown."""
    rows, metrics = summarise(runs), _metrics([run for run in runs if not run.get('error')])
    kinds = dict.fromkeys(row['memory_of'] for row in rows if 'memory_of' in row)
    heads = ['backbone', 'runs', *metrics, 'frozen / trained parameters (M)', 'ms per image',
             f'memory of the {"/".join(kinds) or "process"} (MiB)', 'error']  # fmt: skip
    lines = [f'| {" | ".join(heads)} |', f'|{"---|" * len(heads)}']
    for row in rows:
        cells = [row['backbone'], str(row['runs'])]
        for metric in metrics:
            spread = row.get(f'{metric} spread')
            told = '' if spread is None else f' ± {spread:.2f}'
            cells.append(f'{row[metric]:.2f}{told}' if metric in row else '-')
        if 'memory' in row:
            sizes = [f'{row[key] / 1e6:.2f}' for key in ('backbone_parameters', 'trained_parameters')]
            cells += [' / '.join(sizes), f'{row["milliseconds"]:.1f}', f'{row["memory"]:.0f}']
        else:
            cells += ['-'] * 3
        cells.append(row['error'].replace('|', '\\|').replace('\n', ' '))
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def write_comparison(runs: Sequence[Mapping[str, Any]], work_dir: str | os.PathLike[str]) -> list[Path]:
    """Write ``runs.csv``, ``table.csv``, ``table.md`` and, once there are scores, ``backbones.png``."""
    folder = Path(work_dir)
    flat = [{**{key: value for key, value in run.items() if key != 'scores'}, **run.get('scores', {})} for run in runs]
    paths = [_write(folder / 'runs.csv', _csv(flat)), _write(folder / 'table.csv', _csv(summarise(runs)))]
    paths.append(_write(folder / 'table.md', comparison_table(runs)))
    if any(run.get('scores') for run in runs):
        paths.append(draw_comparison(folder / 'backbones.png', runs))
    return paths


def _metrics(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(metric for run in runs for metric in run['scores']))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator='\n')
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _write(path: Path, text: str) -> Path:
    with replaced_when_complete(path) as file:
        file.write(text.encode())
    return path
