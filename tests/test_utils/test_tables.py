"""Rows as CSV, Markdown, means and spreads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from omh_mmseg.utils.tables import (
    markdown_table,
    mean_and_spread,
    read_csv,
    summarise,
    with_spreads,
    write_csv,
    write_markdown,
)

NAN = float('nan')


def test_csv_keeps_columns_of_all_rows(tmp_path: Path):
    path = write_csv(tmp_path / 'new' / 'a.csv', [dict(a=1, b=NAN), dict(a='x, y', c=0.1)])
    assert path.read_text() == 'a,b,c\n1,,\n"x, y",,0.1\n'
    assert read_csv(path)[1] == dict(a='x, y', b='', c='0.1')
    with pytest.raises(ValueError, match='no rows to write'):
        write_csv(tmp_path / 'b.csv', [])


def test_markdown_aligns_numbers_to_the_right(tmp_path: Path):
    rows = [dict(name='a', score=1.005, count=3), dict(name='long', score=NAN)]
    assert markdown_table(rows).splitlines() == [
        '| name | score | count |',
        '|------|------:|------:|',
        '| a    |  1.00 |     3 |',
        '| long |       |       |',
    ]
    assert write_markdown(tmp_path / 'a.md', rows).read_text() == f'{markdown_table(rows)}\n'


def test_means_leave_nan_out():
    assert mean_and_spread([1.0, 3.0, NAN]) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean_and_spread([4.0]) == (4.0, 0.0)
    assert all(math.isnan(value) for value in mean_and_spread([NAN]))


def test_summary_by_columns():
    rows = [dict(host='a', x=1.0), dict(host='b', x=5.0, y=1.0), dict(host='a', x=2.0)]
    a, b = summarise(rows, ('host',), ('x', 'y'))
    assert (a['host'], a['runs'], a['x']) == ('a', 2, 1.5) and math.isnan(a['y'])
    assert (b['x'], b['x_spread'], b['y']) == (5.0, 0.0, 1.0)
    shown = with_spreads([a, b], ('x', 'y'), 1)
    assert shown == [dict(host='a', runs=2, x='1.5 +- 0.7', y=''), dict(host='b', runs=1, x='5.0', y='1.0')]
