"""Rows, means, differences and files of a sweep."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest

from omh_mmseg.study.schedule import Schedule, SweepRun
from omh_mmseg.study.table import (
    by_seed,
    compare,
    reference_values,
    shown_row,
    sweep_summary,
    sweep_table,
    table_metrics,
    write_tables,
)

HOST, OMH = (20.0, 22.0, 24.0), (25.0, 26.0, 30.0)


def unpadded(table: str) -> str:
    """A Markdown table with single spaces."""
    return '\n'.join(' '.join(line.split()) for line in table.splitlines())


def read(path: Path) -> list[dict]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def row(name: str, seed: int, scores: dict | None = None, error: str = '', **more) -> dict:
    if error:
        found = dict(status='failed', error=error)
    else:
        found = dict(status='finished', scores=scores or {}, seconds=5.0, ms_per_step=10.0 + seed, memory=100.0 + seed,
                     memory_of='process')  # fmt: skip
    fixed = dict(name=name, seed=seed, config='x.py', overrides='{}', commit='abc', curve='', x=None)
    return fixed | found | more


def rows() -> list[dict]:
    found = [row('host', seed, {'probe/mIoU': value, 'linear/mIoU': 50.0}) for seed, value in enumerate(HOST)]
    found += [
        row('omh', seed, {'probe/mIoU': 21.0, 'level1/mIoU': value}, figures={'train/omh_sparsity_12': 0.5})
        for seed, value in enumerate(OMH)
    ]
    return [*found, row('bad', 0, error='OSError: a | b'), row('bad', 1, {'probe/mIoU': 1.0})]


def schedule(**fields) -> Schedule:
    names = ('host', 'omh', 'bad')
    return Schedule(tuple(SweepRun(name, 'x.py') for name in names), **({'references': ('host',)} | fields))


def test_paired_difference():
    found = compare(dict(enumerate(OMH)), dict(enumerate(HOST)) | {7: 99.0})
    assert (found.mean, found.seeds) == (5.0, 3)
    assert found.spread == pytest.approx(statistics.stdev([5, 4, 6]))
    # The larger of the two runs' own spreads, not that of the difference.
    assert found.spreads == pytest.approx(5 / statistics.stdev(OMH)) and found.mark == 'above'
    assert compare(dict(enumerate(HOST)), dict(enumerate(OMH))).mark == 'below'
    assert compare({0: 20.0, 1: 24.0}, {0: 21.0, 1: 24.0}).mark == 'within'
    assert compare({0: 1.0}, {1: 1.0}) is None
    alone = compare({0: 3.0}, {0: 1.0})
    assert (alone.mean, alone.spread, alone.spreads, alone.mark, str(alone)) == (2.0, 0.0, None, '', '+2.00 (1)')
    assert compare({0: 2.0, 1: 2.0}, {0: 1.0, 1: 1.0}).mark == ''


def test_a_head_that_the_reference_lacks_is_compared_with_its_probe():
    assert reference_values(rows(), 'host', 'level1/mIoU') == ('probe/mIoU', dict(enumerate(HOST)))
    assert reference_values(rows(), 'omh', 'level1/mIoU') == ('level1/mIoU', dict(enumerate(OMH)))
    assert reference_values(rows(), 'omh', 'linear/mIoU')[1] == {}
    assert reference_values(rows(), 'host', 'train/omh_sparsity_12')[1] == {}
    by_protocol = [row('host', 0, {'stego:probe/mIoU': 3.0, 'probe/mIoU': 1.0})]
    assert reference_values(by_protocol, 'host', 'stego:level1/mIoU') == ('stego:probe/mIoU', {0: 3.0})


def test_values_by_seed():
    assert by_seed(rows(), 'bad', 'probe/mIoU') == {1: 1.0}
    assert by_seed(rows(), 'omh', 'train/omh_sparsity_12') == {0: 0.5, 1: 0.5, 2: 0.5}
    assert by_seed(rows(), 'host', 'memory') == {0: 100.0, 1: 101.0, 2: 102.0}


def test_summary():
    host, omh, bad = sweep_summary(rows(), schedule())
    assert (host['seeds'], host['probe/mIoU'], host['probe/mIoU spread']) == (3, 22.0, 2.0)
    assert not any(' - ' in key for key in host)
    assert (omh['level1/mIoU - host'], omh['level1/mIoU - host seeds']) == (5.0, 3)
    assert (omh['level1/mIoU - host mark'], omh['probe/mIoU - host mark']) == ('above', 'within')
    assert omh['train/omh_sparsity_12'] == 0.5 and 'memory - host' not in omh
    assert (bad['seeds'], bad['error'], bad['probe/mIoU spread']) == (1, 'seed 0: OSError: a | b', 0.0)


def test_table():
    text = unpadded(sweep_table(rows(), schedule(title='Title')))
    assert text.startswith('# Title\n\n| | seeds | probe/mIoU | linear/mIoU | level1/mIoU | ms per step | memory of ')
    lines = text.splitlines()
    assert '| host | 3 | 22.00 ± 2.00 | 50.00 ± 0.00 | - | 11.0 | 101 | |' in lines
    assert '| bad | 1 | 1.00 | - | - | 11.0 | 101 | seed 0: OSError: a \\| b |' in lines
    (difference,) = (line for line in lines if line.startswith('| omh | -1'))
    assert difference == (
        '| omh | -1.00 ± 2.00, se 1.15 (3) within 0.5 | - | +5.00 ± 1.00, se 0.58 (3) **above** 1.9 |'
    )
    assert 'Commit abc.' in text
    assert table_metrics(rows(), schedule(columns=('train/omh_sparsity_12',))) == ['train/omh_sparsity_12']
    assert '| omh | 3 | 0.500 ± 0.000 |' in unpadded(sweep_table(rows(), schedule(columns=('train/omh_sparsity_12',))))
    assert 'Difference' not in sweep_table(rows(), schedule(references=()))


def test_table_of_runs_without_scores():
    """Images without labels: the figures of the training stay."""
    unlabelled = [row('host', seed, figures={'train/loss': 0.1 * seed}) for seed in (0, 1)]
    text = unpadded(sweep_table(unlabelled, schedule()))
    assert '| host | 2 | 10.5 | 100 |' in text
    (summary,) = sweep_summary(unlabelled, schedule())
    assert summary['train/loss'] == pytest.approx(0.05)


def test_backbones_have_sizes_and_times():
    more = dict(ms_per_image=4.25, backbone_parameters=2_224_000, trained_parameters=50_000)
    measured = [row('real', 0, {'probe/mIoU': 3.0}, **more), row('none', 0, error='OSError: x')]
    lines = unpadded(sweep_table(measured, schedule(references=()))).splitlines()
    assert '| frozen / trained parameters (M) | ms per image | ms per step |' in lines[0]
    assert lines[2] == '| real | 1 | 3.00 | 2.22 / 0.05 | 4.2 | 10.0 | 100 | |'
    assert lines[3] == '| none | 0 | - | - / - | - | - | - | seed 0: OSError: x |'


def test_rows_as_csv(tmp_path):
    found = read(write_tables(rows(), schedule(), tmp_path)[0])
    assert len(found) == len(rows())
    assert (found[0]['name'], found[0]['probe/mIoU'], found[0]['level1/mIoU']) == ('host', '20.0', '')
    assert (found[3]['train/omh_sparsity_12'], found[3]['status']) == ('0.5', 'finished')
    assert (found[6]['status'], found[6]['error'], found[6]['memory']) == ('failed', 'OSError: a | b', '')
    assert list(found[0])[:8] == ['name', 'config', 'backbone', 'overrides', 'seed', 'commit', 'status', 'error']


def test_files(tmp_path):
    paths = write_tables(rows(), schedule(), tmp_path)
    assert [path.name for path in paths] == ['runs.csv', 'table.csv', 'table.md']
    host = read(paths[1])[0]
    assert list(host)[:4] == ['name', 'seeds', 'probe/mIoU', 'probe/mIoU spread']
    assert (host['seeds'], host['probe/mIoU spread'], host['level1/mIoU - host seeds']) == ('3', '2.0', '')
    # A sweep that has just started.
    runs, _, table = write_tables([], schedule(), tmp_path / 'none')
    assert read(runs) == [] and runs.read_text().startswith('name,config,') and 'No run has ended' in table.read_text()


def test_rows_that_show_another_run() -> None:
    scores = {'probe/mIoU': 20.0, 'level1/mIoU': 21.0, 'level1/clusters': 6.0, 'stego:probe/mIoU': 19.0,
              'refit:probe/mIoU': 22.0, 'refit:level1/mIoU': 23.0, 'refit:level1/delta': 0.1}  # fmt: skip
    trained = row('control', 0, scores, figures={'train/loss': 1.0})
    asked = ('stego', 'refit')
    shown = {
        run.name: shown_row(trained, run, asked)
        for run in (
            SweepRun('control', 'x.py'),
            SweepRun('host', '', of='control', heads=('probe',)),
            SweepRun('host + refit', '', of='control', refit=True, heads=('probe',)),
            SweepRun('control + refit', '', of='control', refit=True),
        )
    }
    assert {name: one['name'] for name, one in shown.items()} == {name: name for name in shown}
    assert shown['control']['scores'] == {key: value for key, value in scores.items() if not key.startswith('refit')}
    assert shown['control']['figures'] == {'train/loss': 1.0} and shown['host']['figures'] == {}
    assert shown['host']['scores'] == {'probe/mIoU': 20.0, 'stego:probe/mIoU': 19.0}
    assert shown['host + refit']['scores'] == {'probe/mIoU': 22.0}
    assert shown['control + refit']['scores'] == {'probe/mIoU': 22.0, 'level1/mIoU': 23.0, 'level1/delta': 0.1}
    # What another schedule has asked for is not shown.
    assert shown_row(trained, SweepRun('control', 'x.py'))['scores'] == {'probe/mIoU': 20.0, 'level1/mIoU': 21.0}
    failed = shown_row(row('control', 0, error='OSError: x'), SweepRun('host', '', of='control'), asked)
    assert failed['name'] == 'host' and failed['error'] == 'OSError: x' and 'scores' not in failed
