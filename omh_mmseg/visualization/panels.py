"""Panels that several pictures share: plain axes, matrices with numbers in them, rows of points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from omh_mmseg.visualization.figures import TEXT_COLOUR, TEXT_SIZE, TITLE_SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Grid = Literal['both', 'x', 'y']
LETTER = 0.075
"""Width in inches of a letter of ``TEXT_SIZE``."""
_DARK = 0.5


def add_panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place of a figure given in inches."""
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def add_colour_bar(
    figure: Figure, image: AxesImage, left: float, bottom: float, width: float, height: float, label: str
) -> None:
    """Scale of a matrix's shades, at a place of a figure given in inches."""
    bar = figure.colorbar(image, cax=add_panel(figure, left, bottom, width, height))
    bar.set_label(label, fontsize=TEXT_SIZE, color=TEXT_COLOUR)
    bar.ax.tick_params(labelsize=TEXT_SIZE - 1)
    bar.outline.set_linewidth(0.5)


def thin_frame(axes: Axes) -> None:
    """Draw the frame in thin grey lines."""
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color='#999999')


def plain(axes: Axes, title: str = '', x_label: str = '', y_label: str = '', grid: Grid | None = None) -> Axes:
    """Thin grey frame, small ticks, title at the left, and grid lines of one or both axes."""
    axes.set_title(title, fontsize=TITLE_SIZE - 1, color=TEXT_COLOUR, loc='left')
    axes.set_xlabel(x_label, fontsize=TEXT_SIZE, color=TEXT_COLOUR)
    axes.set_ylabel(y_label, fontsize=TEXT_SIZE, color=TEXT_COLOUR)
    axes.tick_params(labelsize=TEXT_SIZE - 1, length=2, colors=TEXT_COLOUR)
    thin_frame(axes)
    if grid is not None:
        axes.grid(axis=grid, linewidth=0.4, color='#dddddd')
        axes.set_axisbelow(True)
    return axes


def matrix(
    axes: Axes,
    values: np.ndarray,
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float] = (0, 1),
    font: float = TEXT_SIZE - 1,
) -> AxesImage:
    """Matrix in shades of blue with a text in each cell; NaN cells are white.

    Args:
        axes: See `add_panel`.
        values: (rows, columns).
        texts: Likewise; may have two lines.
        rows: Names; empty for none.
        columns: Names, above the matrix's lower edge.
        limits: Values of the lightest and the darkest shade.
        font: Size of the texts.
    """
    image = axes.imshow(np.ma.masked_invalid(values), cmap='Blues', vmin=limits[0], vmax=limits[1], aspect='auto')
    for row, column in np.ndindex(*np.shape(values)):
        share = (values[row][column] - limits[0]) / max(limits[1] - limits[0], 1e-12)
        colour = 'white' if share > _DARK else TEXT_COLOUR
        axes.text(column, row, texts[row][column], ha='center', va='center', fontsize=font, color=colour)
    plain(axes)
    axes.set_xticks(range(len(columns)), columns, fontsize=TEXT_SIZE - 1)
    axes.set_yticks(range(len(rows)), rows, fontsize=TEXT_SIZE - 1)
    axes.tick_params(length=0, pad=3)
    return image
