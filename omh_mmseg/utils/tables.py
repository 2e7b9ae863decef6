"""Rows of figures as CSV, Markdown and means with spreads, by pandas (the extra ``study``)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omh_mmseg.shipped import install_extra
from omh_mmseg.utils.files import write_text

try:
    import pandas as pd
    import tabulate  # noqa: F401  pandas draws Markdown with it
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'tables need {error.name}, which is not installed: {install_extra("study")}', name=error.name
    ) from error

Row = Mapping[str, Any]
PathLike = str | os.PathLike[str]


def write_csv(
    path: PathLike, rows: Sequence[Row], digits: int | None = None, columns: Sequence[str] | None = None
) -> Path:
    """Write rows as CSV with a header; absent and NaN values become empty cells.

    Args:
        path: File to write.
        rows: Their keys become columns, in the order of their first appearance.
        digits: Decimals to round to; None for all.
        columns: Columns of a file that may have no rows yet.

    Raises:
        ValueError: There are neither rows nor columns.
    """
    if not rows and columns is None:
        raise ValueError(f'no rows to write to {path}')
    if digits is not None:
        rows = [
            {key: round(value, digits) if isinstance(value, float) else value for key, value in row.items()}
            for row in rows
        ]
    frame = _frame(rows, columns if not rows else None)
    return write_text(path, frame.to_csv(index=False, lineterminator='\n'))


def markdown_table(rows: Sequence[Row], digits: int = 2) -> str:
    """Rows as a Markdown table; fractions rounded, numbers to the right, absent and NaN values empty."""
    frame = _frame(rows)
    sides = ['right' if column.dropna().map(_is_number).all() else 'left' for _, column in frame.items()]
    cells = frame.apply(lambda column: column.map(lambda value: _shown(value, digits)))
    cells.columns = [_shown(name, digits) for name in cells.columns]
    return cells.to_markdown(index=False, disable_numparse=True, colalign=sides)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value), over the values that are not NaN."""
    series = pd.Series(values, dtype=float)
    mean = float(series.mean())
    return mean, float(series.std()) if series.count() > 1 else 0 * mean


def summarise(rows: Sequence[Row], by: Sequence[str], figures: Sequence[str]) -> list[dict[str, Any]]:
    """Mean and spread of figures over the rows that agree in some columns, as by `mean_and_spread`.

    Args:
        rows: With all these columns; a figure may be absent.
        by: Columns that name a group, kept in the order of their first appearance.
        figures: Columns of numbers.

    Returns:
        Per group its names, ``runs``, and per figure ``<figure>`` (mean) and ``<figure> spread``.
    """
    frame = pd.DataFrame(list(rows)).reindex(columns=[*by, *figures])
    groups = frame.astype(dict.fromkeys(figures, float)).groupby(list(by), sort=False, dropna=False)
    means = groups[list(figures)].mean()
    spreads = groups[list(figures)].std().where(groups[list(figures)].count() > 1, 0 * means)
    columns = {'runs': groups.size()}
    for figure in figures:
        columns |= {figure: means[figure], f'{figure} spread': spreads[figure]}
    return pd.DataFrame(columns).reset_index().to_dict('records')


def with_spreads(rows: Sequence[Row], figures: Sequence[str], digits: int = 3) -> list[dict[str, Any]]:
    """Rows of `summarise` for reading: mean and spread of a figure in one cell, see `mean_cell`."""
    spreads = {figure: f'{figure} spread' for figure in figures}
    return [
        {key: value for key, value in row.items() if key not in (*spreads, *spreads.values())}
        | {figure: mean_cell(row[figure], row[spread], row['runs'], digits) for figure, spread in spreads.items()}
        for row in rows
    ]


def mean_cell(mean: float, spread: float, runs: int, digits: int, mark: str = '+-') -> str:
    """``mean +- spread``, without the spread for a single run; empty for NaN."""
    if math.isnan(mean):
        return ''
    return f'{mean:.{digits}f}' + (f' {mark} {spread:.{digits}f}' if runs > 1 else '')


def list_files(paths: Sequence[Path]) -> str:
    """The line in which a command names the files that it made."""
    return f'written: {", ".join(map(str, paths))}'


def _frame(rows: Sequence[Row], columns: Sequence[str] | None = None) -> pd.DataFrame:
    # As objects, whole numbers stay whole beside empty cells.
    return pd.DataFrame(list(rows), columns=columns, dtype=object)


def _shown(value: Any, digits: int) -> str:
    if pd.isna(value):
        return ''
    text = f'{value:.{digits}f}' if isinstance(value, float) else str(value)
    return text.replace('|', '\\|').replace('\n', ' ')


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
