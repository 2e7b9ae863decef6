"""Rank correlations of figures with scores over a sweep's runs."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from omh_mmseg.analysis import label_free
from omh_mmseg.evaluation.label_free import FIGURES

HEADS = ('probe', 'level1')


def figures(value: float) -> dict[str, float]:
    return dict.fromkeys(FIGURES, 5.0) | dict(margin=value, mirror=-value, boundary=math.nan)


def sweep(folder: Path, scores: list[float], with_figures: bool = False) -> Path:
    rows = []
    for seed, score in enumerate(scores):
        row = dict(name='run', seed=seed, status='finished', folder=str(folder / f'run/seed{seed}'))
        row |= {f'{head}/mIoU': score for head in (*HEADS, 'linear')} | {'stego-128:probe/mIoU': 99.0}
        if with_figures:
            row |= {f'label_free/{head}/{name}': value for head in HEADS for name, value in figures(score**2).items()
                    if not math.isnan(value)}  # fmt: skip
        rows.append(row)
    rows.append(dict(rows[0], seed=9, status='failed'))
    folder.mkdir(parents=True)
    with (folder / 'runs.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_figures_of_the_table_are_ranked(tmp_path: Path) -> None:
    sweep(tmp_path / 'one', [10.0, 30.0, 20.0], with_figures=True)
    text = label_free.analyse_sweeps([tmp_path], tmp_path / 'out')
    assert 'left out' not in text
    with (tmp_path / 'out/label_free_correlation.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [(row['head'], row['runs']) for row in rows] == [('probe', '3'), ('level1', '3')]
    assert all(float(row['margin']) == 1 and float(row['mirror']) == -1 for row in rows)
    assert rows[0]['in_use'] == rows[0]['boundary'] == ''


def test_rows_that_show_a_run_again_do_not_count(tmp_path: Path) -> None:
    """Such as its refit: the checkpoint, of which figures are, is that of the training."""
    folder = sweep(tmp_path / 'one', [10.0, 30.0, 20.0], with_figures=True)
    with (folder / 'runs.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    shown = [dict(row, **{'name': 'run + refit', 'train/loss': '', 'probe/mIoU': 50.0}) for row in rows]
    with (folder / 'runs.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, [*rows[0], 'train/loss'])
        writer.writeheader()
        writer.writerows([*shown, *(dict(row, **{'train/loss': 1.0}) for row in rows)])
    label_free.analyse_sweeps([tmp_path], tmp_path / 'out')
    with (tmp_path / 'out/label_free_correlation.csv').open() as file:
        assert [(row['runs'], row['margin']) for row in csv.DictReader(file)] == [('3', '1.0')] * 2


def test_absent_figures_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(tmp_path / 'one', [1.0, 2.0, 3.0])
    asked: list[str] = []

    def measure(config: str, checkpoint: str, *rest: object) -> dict:
        asked.append(checkpoint)
        if checkpoint.endswith('seed2'):
            raise FileNotFoundError('it holds no checkpoint')
        return dict.fromkeys(HEADS, figures(float(checkpoint[-1])))

    monkeypatch.setattr(label_free, 'measure', measure)
    for name in ('read_config', 'config_file', 'checkpoint_file'):
        monkeypatch.setattr(label_free, name, str)
    text = label_free.analyse_sweeps([tmp_path / 'one'], tmp_path / 'out')
    assert 'left out: run, seed 2: it holds no checkpoint' in text
    assert asked == [str(tmp_path / f'one/run/seed{seed}') for seed in range(3)]
    label_free.analyse_sweeps([tmp_path / 'one'], tmp_path / 'out')
    assert asked[3:] == asked[2:3]  # the failed one alone
    label_free.analyse_sweeps([tmp_path / 'one'], tmp_path / 'out', images=7)
    assert asked[4:] == asked[:3]  # of other images


def test_ranks_within_sweeps_do_not_see_differences_between_them() -> None:
    rows = [
        dict(sweep=name, head='probe', mIoU=base + step) | figures(base - step)
        for name, base in (('low', 0), ('high', 100)) for step in (1, 2, 3, 4)
    ]  # fmt: skip
    low, high, within = label_free.rank_correlations(rows, 'mIoU')
    assert low['margin'] == high['margin'] == within['margin'] == pytest.approx(-1)
    assert within['sweep'] == label_free.WITHIN and within['runs'] == 8
    assert math.isnan(within['in_use']) and math.isnan(within['boundary'])
    (few,) = label_free.rank_correlations(rows[:2], 'mIoU')
    assert math.isnan(few['margin'])


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'there is no runs\.csv in or below'):
        label_free.analyse_sweeps([tmp_path], tmp_path / 'out')
    sweep(tmp_path / 'one', [1.0])
    with pytest.raises(FileNotFoundError, match='is finished and has NMI'):
        label_free.analyse_sweeps([tmp_path], tmp_path / 'out', 'NMI')
