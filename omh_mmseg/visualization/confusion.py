"""Which clusters the pixels of each class fall into, as a matrix picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omh_mmseg.structures.assignment import UNMATCHED
from omh_mmseg.visualization.figures import TEXT_COLOUR, TEXT_SIZE, TITLE_SIZE, add_note, new_figure, save_figure
from omh_mmseg.visualization.panels import add_colour_bar, add_panel, thin_frame

_TOP, _BOTTOM, _RIGHT, _BAR = 0.45, 0.95, 1.0, 0.15  # inches
_LARGEST_CELL, _SMALLEST_CELL, _PANEL = 0.32, 0.1, 6.0
_LETTER = 0.085
_NOTE_WIDTH = 4.6
_NOTE = 'Each row spreads the pixels of a class over the clusters.\nFramed: the clusters that stand for the class.'


def draw_confusion_matrix(
    path: str | os.PathLike[str],
    counts: np.ndarray,
    assignment: np.ndarray | Sequence[int],
    classes: Sequence[str],
    title: str = '',
) -> Path:
    """Draw true classes as rows and clusters, in the order of their classes, as columns.

    Args:
        path: PNG to write.
        counts: (clusters, classes) pixels.
        assignment: (clusters,) class of each cluster, -1 for none; those are drawn last.
        classes: Names.
        title: Above the matrix.

    Returns:
        ``path``.

    Raises:
        ValueError: Sizes do not fit.
    """
    counts, assignment = np.asarray(counts), np.asarray(assignment)
    if counts.shape != (len(assignment), len(classes)) or (assignment >= len(classes)).any():
        raise ValueError(
            f'counts of shape {counts.shape} do not fit {len(assignment)} assigned clusters and {len(classes)} classes'
        )
    order = np.lexsort([np.arange(len(assignment)), np.where(assignment == UNMATCHED, len(classes), assignment)])
    pixels = counts.sum(axis=0)[:, None]
    shares = np.divide(counts[order].T, pixels, out=np.zeros((len(classes), len(order))), where=pixels > 0)

    cell = float(np.clip(_PANEL / max(shares.shape), _SMALLEST_CELL, _LARGEST_CELL))
    panel_width, panel_height = max(cell * len(order), 1.5), max(cell * len(classes), 1.5)
    left = 0.3 + _LETTER * max(map(len, classes))
    figure = new_figure(max(left + panel_width + _RIGHT, _NOTE_WIDTH), panel_height + _TOP + _BOTTOM)
    axes = add_panel(figure, left, _BOTTOM, panel_width, panel_height)
    image = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    for column, label in enumerate(assignment[order]):
        if label != UNMATCHED:
            frame = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]]) + [column, label]
            axes.plot(*frame.T, color='#d55e00', linewidth=0.7, clip_on=False)
    font = float(np.clip(0.72 * 72 * panel_height / len(classes), 4, TEXT_SIZE))
    axes.set_yticks(range(len(classes)), classes, fontsize=font, color=TEXT_COLOUR)
    font = float(np.clip(0.5 * 72 * panel_width / len(order), 3.5, TEXT_SIZE))
    axes.set_xticks(range(len(order)), [str(number) for number in order], fontsize=font, color=TEXT_COLOUR)
    axes.tick_params(length=0, pad=2)
    axes.set(xlim=(-0.5, len(order) - 0.5), ylim=(len(classes) - 0.5, -0.5))
    axes.set_xlabel('cluster', fontsize=TEXT_SIZE, color=TEXT_COLOUR, labelpad=2)
    axes.set_title(title, fontsize=TITLE_SIZE, color=TEXT_COLOUR, loc='left')
    thin_frame(axes)
    add_colour_bar(figure, image, left + panel_width + 0.2, _BOTTOM, _BAR, panel_height, 'share of the class')
    add_note(figure, _NOTE, bottom=0.1, size=TEXT_SIZE)
    return save_figure(figure, path)
