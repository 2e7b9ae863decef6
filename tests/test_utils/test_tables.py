"""Rows as CSV, Markdown, means and spreads."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest

from omh_mmseg.shipped import install_extra
from omh_mmseg.utils.tables import markdown_table, mean_and_spread, summarise, with_spreads, write_csv

NAN = float('nan')


def test_csv_keeps_columns_of_all_rows(tmp_path: Path):
    path = write_csv(tmp_path / 'new' / 'a.csv', [dict(a=1, b=NAN), dict(a='x, y', c=0.1)])
    assert path.read_text() == 'a,b,c\n1,,\n"x, y",,0.1\n'
    assert list(csv.DictReader(path.open()))[1] == dict(a='x, y', b='', c='0.1')
    rounded = write_csv(tmp_path / 'c.csv', [dict(a=3, b=None, c=True), dict(a=None, b=1 / 3)], digits=2)
    assert rounded.read_text() == 'a,b,c\n3,,True\n,0.33,\n'
    assert write_csv(tmp_path / 'd.csv', [], columns=['a', 'b']).read_text() == 'a,b\n'
    with pytest.raises(ValueError, match='no rows to write'):
        write_csv(tmp_path / 'b.csv', [])


def test_markdown_aligns_numbers_to_the_right():
    rows = [dict(name='a', score=1.005, count=3), dict(name='long', score=NAN)]
    assert markdown_table(rows).splitlines() == [
        '| name   |   score |   count |',
        '|:-------|--------:|--------:|',
        '| a      |    1.00 |       3 |',
        '| long   |         |         |',
    ]
    # A text that looks like a number is left as it is, and a bar does not end its cell.
    assert markdown_table([dict(a='0.706', b='x | y\nz')]).splitlines()[2] == r'| 0.706 | x \| y z |'


def test_means_leave_nan_out():
    assert mean_and_spread([1.0, 3.0, NAN]) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean_and_spread([4.0]) == (4.0, 0.0)
    assert all(math.isnan(value) for value in mean_and_spread([NAN]))


def test_summary_by_columns():
    rows = [dict(host='a', x=1.0), dict(host='b', x=5.0, y=1.0), dict(host='a', x=2.0)]
    a, b = summarise(rows, ('host',), ('x', 'y'))
    assert (a['host'], a['runs'], a['x']) == ('a', 2, 1.5) and math.isnan(a['y'])
    assert (b['x'], b['x spread'], b['y']) == (5.0, 0.0, 1.0)
    shown = with_spreads([a, b], ('x', 'y'), 1)
    assert shown == [dict(host='a', runs=2, x='1.5 +- 0.7', y=''), dict(host='b', runs=1, x='5.0', y='1.0')]


@pytest.mark.parametrize('absent', ['pandas', 'tabulate'])
def test_the_package_needs_no_pandas_and_tables_name_the_extra(absent: str):
    code = (
        f'import sys; sys.modules[{absent!r}] = None\n'
        'import omh_mmseg, omh_mmseg.study.demo, omh_mmseg.study.job, omh_mmseg.evaluation.score_table\n'
        'import omh_mmseg.study.runner'
    )
    ended = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    last = ended.stderr.strip().splitlines()[-1]
    assert last == (
        f"ModuleNotFoundError: tables need {absent}, which is not installed: {install_extra('study')}"
    )
