"""Rows of figures as CSV, Markdown and means with spreads."""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omh_mmseg.utils.files import replaced_when_complete

Row = Mapping[str, Any]


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Keys of all rows, in the order of their first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def write_csv(path: str | os.PathLike[str], rows: Sequence[Row]) -> Path:
    """Write rows as CSV with a header; absent and NaN values become empty cells.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError(f'no rows to write to {path}')
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows), lineterminator='\n')
    writer.writeheader()
    writer.writerows({key: '' if _is_nan(value) else value for key, value in row.items()} for row in rows)
    with replaced_when_complete(path) as file:
        file.write(text.getvalue().encode())
    return Path(path)


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Read what `write_csv` wrote, as texts."""
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def markdown_table(rows: Sequence[Row], digits: int = 2) -> str:
    """Rows as a Markdown table; numbers rounded and to the right, absent and NaN values empty."""
    columns = columns_of(rows)
    cells = [[_shown(row.get(column), digits) for column in columns] for row in rows]
    numeric = [all(_is_number(row.get(column)) for row in rows if row.get(column) is not None) for column in columns]
    widths = [max(map(len, texts)) for texts in zip(columns, *cells)]

    def line(texts: Sequence[str]) -> str:
        padded = (f'{text:{">" if right else "<"}{width}}' for text, width, right in zip(texts, widths, numeric))
        return f'| {" | ".join(padded)} |'

    rule = '|' + '|'.join(f'{"-" * (width + 1)}{":" if right else "-"}' for width, right in zip(widths, numeric)) + '|'
    return '\n'.join([line(columns), rule, *map(line, cells)])


def write_markdown(path: str | os.PathLike[str], rows: Sequence[Row], digits: int = 2) -> Path:
    """Write `markdown_table` to a file."""
    return write_text(path, markdown_table(rows, digits))


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write lines of text, ended by a line break, to a file that appears complete or not at all."""
    with replaced_when_complete(path) as file:
        file.write(f'{text}\n'.encode())
    return Path(path)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value), over the values that are not NaN."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return float('nan'), float('nan')
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0


def summarise(rows: Sequence[Row], by: Sequence[str], figures: Sequence[str]) -> list[dict[str, Any]]:
    """Mean and spread of figures over the rows that agree in some columns.

    Args:
        rows: With all these columns; a figure may be absent.
        by: Columns that name a group, kept in the order of their first appearance.
        figures: Columns of numbers.

    Returns:
        Per group its names, ``runs``, and per figure ``<figure>`` (mean) and ``<figure>_spread``.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    summary = []
    for names, members in groups.items():
        entry: dict[str, Any] = {**dict(zip(by, names)), 'runs': len(members)}
        for figure in figures:
            entry[figure], entry[f'{figure}_spread'] = mean_and_spread(
                [float(row[figure]) for row in members if figure in row]
            )
        summary.append(entry)
    return summary


def with_spreads(rows: Sequence[Row], figures: Sequence[str], digits: int = 3) -> list[dict[str, Any]]:
    """Rows of `summarise` for reading: ``mean +- spread`` in one cell, without the spread for single runs."""
    shown = []
    for row in rows:
        entry = {key: value for key, value in row.items() if key.removesuffix('_spread') not in figures}
        for figure in figures:
            mean, spread = row[figure], row[f'{figure}_spread']
            text = '' if math.isnan(mean) else f'{mean:.{digits}f}'
            entry[figure] = text if not text or row['runs'] < 2 else f'{text} +- {spread:.{digits}f}'
        shown.append(entry)
    return shown


def _shown(value: Any, digits: int) -> str:
    if value is None or _is_nan(value):
        return ''
    return f'{value:.{digits}f}' if isinstance(value, float) else str(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


PathLike = str | os.PathLike[str]


def _written(paths: Sequence[Path]) -> str:
    return f'written: {", ".join(map(str, paths))}'
