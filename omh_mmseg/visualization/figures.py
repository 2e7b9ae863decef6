"""What all pictures share: figures without global state, text sizes and atomic saving."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from omh_mmseg.utils.files import replaced_when_complete

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
TITLE_SIZE = 11
TEXT_SIZE = 9
TEXT_COLOUR = '#222222'
NOTE_COLOUR = '#555555'


def new_figure(width: float, height: float) -> Figure:
    """Make an empty white figure of that many inches that belongs to no window and no pyplot registry."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def add_note(
    figure: Figure, text: str, left: float = 0.15, bottom: float = 0.12, size: float = TEXT_SIZE - 1,
    colour: str = NOTE_COLOUR,
) -> None:  # fmt: skip
    """Write a text at a distance in inches from the lower left corner of a figure."""
    width, height = figure.get_size_inches()
    figure.text(left / width, bottom / height, text, fontsize=size, color=colour, va='bottom')


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG under a temporary name, then move it to ``path``; parent folders are made.

    Raises:
        ValueError: ``path`` does not end in ``.png``.
    """
    path = Path(path)
    if path.suffix.lower() != '.png':
        raise ValueError(f'pictures are written as PNG, so the file name must end in .png; got {path}')
    with replaced_when_complete(path) as file:
        figure.savefig(file, format='png', dpi=DPI)
    return path
