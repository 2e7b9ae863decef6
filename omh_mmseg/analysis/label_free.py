"""Figures that need no labels: of one model, and how far they go with the scores of a sweep's runs."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.progress import track
from scipy.stats import rankdata, spearmanr

from omh_mmseg.analysis.level_counts import load_levels
from omh_mmseg.evaluation.label_free import FIGURES
from omh_mmseg.models.prediction.label_free import PREFIX, LabelFreeMeter, measure_images
from omh_mmseg.registry import DATASETS
from omh_mmseg.shipped import command_line
from omh_mmseg.utils.config import read_config, split_dataset
from omh_mmseg.utils.files import write_text
from omh_mmseg.utils.spread import evenly_spread
from omh_mmseg.utils.tables import PathLike, list_files, markdown_table, write_csv
from omh_mmseg.utils.work_dirs import checkpoint_file, config_file

RUNS, SWEEP = 'runs.csv', 'analysis_tools/sweep.py'
IDENTITY = ('sweep', 'run', 'seed', 'head')
FEWEST = 3
WITHIN = 'all, ranked within each sweep'


def measure(
    config: Config, checkpoint: str, split: str = 'val', images: int | None = 100, device: str | None = None
) -> dict[str, dict[str, float]]:
    """Head -> figure -> value of one model; see `LabelFreeMeter.figures`.

    Args:
        config: Of the model and its data; labels are not used.
        checkpoint: File or address.
        split: Of the images.
        images: At most so many, spread evenly; None for all.
        device: By default the first GPU, else the CPU.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Wrong weights, an unknown split, or ``images`` below 1.
    """
    if images is not None and images < 1:
        raise ValueError(f'at least one image is needed; got images={images}')
    init_default_scope(config.get('default_scope', 'mmseg'))
    dataset = DATASETS.build(split_dataset(config, split))
    meter = LabelFreeMeter(load_levels(config, checkpoint, device))
    measure_images(meter, dataset, evenly_spread(len(dataset), len(dataset) if images is None else images))
    return meter.figures()


def analyse_model(
    config: Config, checkpoint: str, out: PathLike, split: str = 'val', images: int | None = 100,
    device: str | None = None,
) -> str:  # fmt: skip
    """`measure`, written to ``<out>/label_free.csv`` and ``.md``; the report.

    Raises:
        FileNotFoundError: See `measure`.
        ValueError: Likewise.
    """
    rows = [dict(head=head, **values) for head, values in measure(config, checkpoint, split, images, device).items()]
    table = markdown_table(rows, digits=3)
    files = [write_csv(Path(out) / 'label_free.csv', rows), write_text(Path(out) / 'label_free.md', f'{table}\n')]
    return f'{table}\n\n{list_files(files)}'


def analyse_sweeps(
    sweeps: Sequence[PathLike], out: PathLike, score: str = 'mIoU', split: str = 'val', images: int | None = 100,
    device: str | None = None,
) -> str:  # fmt: skip
    """Spearman's rank correlation of each figure with a score over the finished runs of sweeps; the report.

    Figures that a sweep's table has are taken from there, others are measured from the runs' checkpoints and kept in
    ``<out>/label_free_runs.csv``: a second call measures only what is new. A run that cannot be measured is named and
    left out.

    Args:
        sweeps: Work directories of sweeps, or folders with some below them.
        out: Folder of ``label_free_runs.csv``, ``label_free_correlation.csv`` and ``.md``.
        score: What the figures are compared with, of the same head: ``'mIoU'`` or ``'aAcc'``, say.
        split: See `measure`.
        images: Likewise.
        device: Likewise.

    Raises:
        FileNotFoundError: There is no sweep, or no finished run with that score.
        ValueError: ``images`` is below 1.
    """
    file, settings = Path(out) / 'label_free_runs.csv', dict(split=split, images=str(images))
    known = _kept(file, settings)
    runs = [run for folder in find_sweeps(sweeps) for run in _finished_runs(folder, score)]
    if not runs:
        raise FileNotFoundError(f'no run of {", ".join(map(str, sweeps))} is finished and has {score}')
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for run in track(runs, 'measuring'):
        measured = run['figures'] or known.get(run['key'])
        origin = dict.fromkeys(settings, 'of the sweep') if run['figures'] else settings
        if measured is None:
            try:
                folder = run['folder']
                config = read_config(config_file(folder))
                measured = measure(config, checkpoint_file(folder), split, images, device)
            except (OSError, ValueError) as error:
                failed.append(f'{run["key"][1]}, seed {run["key"][2]}: {str(error).splitlines()[0]}')
                continue
        for head, value in run['scores'].items():
            if head in measured:
                rows.append(dict(zip(IDENTITY, (*run['key'], head))) | origin | {score: value} | measured[head])
        if rows:
            write_csv(file, rows, 6)
    if not rows:
        raise FileNotFoundError('none of the runs could be measured:\n  ' + '\n  '.join(failed))
    correlations = rank_correlations(rows, score)
    table = markdown_table(correlations)
    title = f'Rank correlation (Spearman) of figures without labels with {score}, by head'
    files = [
        file, write_csv(Path(out) / 'label_free_correlation.csv', correlations, 4),
        write_text(Path(out) / 'label_free_correlation.md', f'{title}\n\n{table}\n'),
    ]  # fmt: skip
    notes = [f'left out: {failure}' for failure in failed]
    return '\n\n'.join([title, table, *notes, list_files(files)])


def rank_correlations(rows: Sequence[dict[str, Any]], score: str) -> list[dict[str, Any]]:
    """Per head and sweep Spearman's rho of every figure with the score; NaN below three runs or without a spread.

    Where there are several sweeps, a row more per head has the correlation of the ranks within each sweep: differences
    between data sets, which move score and figures alike, do not count in it.

    Args:
        rows: ``sweep``, ``head``, the score and the figures of each run.
        score: Its name.
    """
    result = []
    for head in dict.fromkeys(row['head'] for row in rows):
        of_head = [row for row in rows if row['head'] == head]
        sweeps = list(dict.fromkeys(row['sweep'] for row in of_head))
        groups = {sweep: [row for row in of_head if row['sweep'] == sweep] for sweep in sweeps}
        for sweep, group in groups.items():
            rhos = {figure: _spearman(_column(group, score), _column(group, figure)) for figure in FIGURES}
            result.append(dict(head=head, sweep=sweep, runs=len(group), **rhos))
        if len(groups) > 1:
            rhos = {figure: _within(groups.values(), score, figure) for figure in FIGURES}
            result.append(dict(head=head, sweep=WITHIN, runs=len(of_head), **rhos))
    return result


def find_sweeps(paths: Sequence[PathLike]) -> list[Path]:
    """Folders with a ``runs.csv``: those given, and those below them.

    Raises:
        FileNotFoundError: There is none.
    """
    found = [table.parent for path in paths for table in sorted(Path(path).rglob(RUNS))]
    if not found:
        listed = ', '.join(map(str, paths))
        raise FileNotFoundError(f'there is no {RUNS} in or below {listed}; {command_line(SWEEP)} writes it')
    return list(dict.fromkeys(found))


def _finished_runs(sweep: Path, score: str) -> list[dict[str, Any]]:
    """``key``, ``folder``, ``scores`` and, where the table has them, ``figures`` of each finished run, by head.

    Rows that show a run once more, such as its refit, are left out: its checkpoint is that of the training.
    """
    runs = []
    with (sweep / RUNS).open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
        trained = {row.get('folder') for row in rows if _is_trained(row)}
        for row in rows:
            if row.get('folder') in trained and not _is_trained(row):
                continue
            scores = {
                column.removesuffix(f'/{score}'): float(value) for column, value in row.items()
                if value and column.count('/') == 1 and column.endswith(f'/{score}') and ':' not in column
            }  # fmt: skip
            scores.pop('linear', None)
            if row['status'] != 'finished' or not scores:
                continue
            figures: dict[str, dict[str, float]] = {}
            for column, value in row.items():
                if value and column.startswith(f'{PREFIX}/'):
                    _, head, figure = column.split('/')
                    figures.setdefault(head, dict.fromkeys(FIGURES, math.nan))[figure] = float(value)
            folder = Path(row.get('folder') or '')
            # A sweep that was moved since has its runs below itself.
            moved = sweep / folder.parent.name / folder.name
            runs.append(dict(key=(str(sweep), row['name'], row['seed']), scores=scores, figures=figures,
                             folder=str(folder if folder.is_dir() or not moved.is_dir() else moved)))  # fmt: skip
    return runs


def _is_trained(row: Mapping[str, str | None]) -> bool:
    """Whether a row has figures of its training, and not scores alone."""
    return any(value and column.startswith('train/') for column, value in row.items())


def _kept(file: Path, settings: dict[str, str]) -> dict[tuple[str, str, str], dict[str, dict[str, float]]]:
    """What an earlier call measured with the same settings, by run and head."""
    kept: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    if file.is_file():
        with file.open(newline='', encoding='utf-8') as lines:
            for row in csv.DictReader(lines):
                if any(row.get(name) != value for name, value in settings.items()):
                    continue
                figures = {figure: float(row[figure] or 'nan') for figure in FIGURES}
                kept.setdefault((row['sweep'], row['run'], row['seed']), {})[row['head']] = figures
    return kept


def _column(rows: Iterable[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    if len(first) < FEWEST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(spearmanr(first, second).statistic)


def _within(groups: Iterable[Sequence[dict[str, Any]]], score: str, figure: str) -> float:
    """Correlation of the ranks within each group, as shares of its runs around their middle."""
    ranks: list[np.ndarray] = []
    for group in groups:
        values = np.stack([_column(group, score), _column(group, figure)])
        values = values[:, np.isfinite(values).all(axis=0)]
        if values.shape[1] >= FEWEST:
            ranks.append((rankdata(values, axis=1) - (values.shape[1] + 1) / 2) / values.shape[1])
    if not ranks:
        return math.nan
    first, second = np.concatenate(ranks, axis=1)
    spread = math.sqrt(float((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / spread) if spread else math.nan
