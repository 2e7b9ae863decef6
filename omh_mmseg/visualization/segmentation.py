"""Truth and the segmentation of each level side by side, with or without the image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.visualization.colours import IGNORED_COLOUR, checked_palette, hex_colour
from omh_mmseg.visualization.figures import NOTE_COLOUR, TEXT_COLOUR, TEXT_SIZE, TITLE_SIZE, new_figure, save_figure
from omh_mmseg.visualization.panels import add_panel, thin_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL, _GAP, _MARGIN, _HEADER, _LINE = 2.3, 0.08, 0.15, 0.5, 0.2  # inches
_LEGEND_PATCH, _LEGEND_LETTER = 0.5, 0.08
_NOTE = 'Each cluster of a finer level has a shade of the colour of the cluster that it belongs to.'


def draw_segmentation_grid(
    path: str | os.PathLike[str],
    images: Sequence[np.ndarray] | None,
    levels: Sequence[Sequence[np.ndarray]],
    palettes: Sequence[np.ndarray],
    truth: Sequence[np.ndarray] | None = None,
    truth_palette: np.ndarray | Sequence | None = None,
    classes: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    note: str | None = None,
    ignore_index: int = IGNORED_LABEL,
) -> Path:
    """Draw one row per image: the image and its truth, where given, and its segmentation at each level.

    With the palettes of :func:`cluster_palettes` and an assignment, level 1 has class colours and each finer level has
    shades of them.

    Args:
        path: PNG to write.
        images: RGB uint8 (H, W, 3), sizes may differ between images. None draws the maps alone.
        levels: For each column a label map (H, W) of cluster numbers per image, coarsest level first.
        palettes: For each column (K, 3) colours.
        truth: Label map (H, W) per image; ``ignore_index`` stays white.
        truth_palette: (num_classes, 3) colours of the classes; needed with ``truth``.
        classes: Class names for the legend, as many as ``truth_palette`` has colours.
        titles: Column titles, those of the image and the truth first where they are drawn. Default: ``level 1``, ...
        note: Line under the picture. Default: how to read the colours of finer levels, where there are any.
        ignore_index: Label of the pixels of ``truth`` without a class.

    Returns:
        ``path``.

    Raises:
        ValueError: Numbers or sizes of images, maps, palettes or titles do not fit, or a label has no colour.
    """
    columns, palettes = _checked_columns(images, levels, palettes, truth, truth_palette)
    first = [name for name, drawn in (('image', images), ('truth', truth)) if drawn is not None]
    if titles is None:
        sizes = [len(palette) for palette in palettes[-len(levels) :]]
        titles = first + [f'level {level}\n{size} clusters' for level, size in enumerate(sizes, start=1)]
    shown = len(columns) + (images is not None)
    if len(titles) != shown:
        raise ValueError(f'{shown} columns need as many titles, got {len(titles)}: {list(titles)}')
    if classes is not None and (truth_palette is None or len(classes) != len(truth_palette)):
        count = 0 if truth_palette is None else len(truth_palette)
        raise ValueError(f'{len(classes)} class names need as many colours in truth_palette, got {count}')
    if note is None:
        note = _NOTE if len(levels) > 1 else ''

    entries: list[tuple[str, str]] = []
    if classes is not None and truth_palette is not None:
        colours = [hex_colour(colour) for colour in checked_palette(truth_palette)]
        entries += zip(colours, classes, strict=True)
    if truth is not None and any((labels == ignore_index).any() for labels in truth):
        entries.append((hex_colour(IGNORED_COLOUR), 'no label'))

    width = 2 * _MARGIN + shown * (_CELL + _GAP) - _GAP
    longest = max((len(name) for _, name in entries), default=0)
    per_line = max(1, int((width - 2 * _MARGIN) / (_LEGEND_PATCH + _LEGEND_LETTER * longest)))
    footer = _LINE * (-(-len(entries) // per_line) + bool(note) + 1.2)
    shapes = [np.shape(labels) for labels in columns[0]]
    row_heights = [_CELL * high / wide for high, wide in shapes]
    height = _HEADER + sum(row_heights) + _GAP * len(shapes) + footer
    figure = new_figure(width, height)

    top = height - _HEADER
    for row, row_height in enumerate(row_heights):
        cells = [] if images is None else [np.asarray(images[row])]
        cells += [
            _paint(column[row], palette, ignore_index if truth is not None and index == 0 else None, row)
            for index, (column, palette) in enumerate(zip(columns, palettes, strict=True))
        ]
        for index, cell in enumerate(cells):
            axes = add_panel(figure, _MARGIN + index * (_CELL + _GAP), top - row_height, _CELL, row_height)
            axes.set(xticks=[], yticks=[])
            photo = images is not None and index == 0
            axes.imshow(cell, interpolation='antialiased' if photo else 'nearest', aspect='auto')
            thin_frame(axes)
            if row == 0:
                axes.set_title(titles[index], fontsize=TITLE_SIZE, color=TEXT_COLOUR, pad=4)
        top -= row_height + _GAP
    _draw_footer(figure, entries, per_line, note, top / height)
    return save_figure(figure, path)


def _draw_footer(figure: Figure, entries: list[tuple[str, str]], per_line: int, note: str, top: float) -> None:
    from matplotlib.patches import Patch

    left = _MARGIN / figure.get_figwidth()
    if note:
        line = _LINE / figure.get_figheight()
        figure.text(left, top - 0.3 * line, note, fontsize=TEXT_SIZE, color=NOTE_COLOUR, va='top')
        top -= line
    if entries:
        handles = [Patch(facecolor=colour, edgecolor='#999999', linewidth=0.5, label=name) for colour, name in entries]
        figure.legend(
            handles=handles, loc='upper left', bbox_to_anchor=(left, top), ncols=min(per_line, len(handles)),
            fontsize=TEXT_SIZE, frameon=False, borderaxespad=0.3, borderpad=0, handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip


def _checked_columns(
    images: Sequence[np.ndarray] | None, levels: Sequence[Sequence[np.ndarray]], palettes: Sequence[np.ndarray],
    truth: Sequence[np.ndarray] | None, truth_palette: np.ndarray | Sequence | None,
) -> tuple[list[Sequence[np.ndarray]], list[np.ndarray]]:  # fmt: skip
    """Put the truth before the levels and check all sizes."""
    count = (len(levels[0]) if levels else 0) if images is None else len(images)
    if count == 0 or len(levels) == 0:
        raise ValueError(f'nothing to draw: {count} images, {len(levels)} levels; give at least one of each')
    if len(levels) != len(palettes):
        raise ValueError(f'{len(levels)} levels need as many palettes, got {len(palettes)}')
    columns, names = list(levels), [f'level {i + 1}' for i in range(len(levels))]
    checked = [checked_palette(palette) for palette in palettes]
    if truth is not None:
        if truth_palette is None:
            raise ValueError('truth needs truth_palette, the colours of its classes')
        columns, names = [truth, *columns], ['truth', *names]
        checked = [checked_palette(truth_palette), *checked]
    reference = f'its {names[0]}' if images is None else 'the image'
    sizes = [np.shape(shown)[:2] for shown in (columns[0] if images is None else images)]
    for index, image in enumerate(images or ()):
        if np.ndim(image) != 3 or np.shape(image)[2] != 3:
            raise ValueError(f'image {index} has shape {np.shape(image)}, expected (H, W, 3)')
    for name, column in zip(names, columns, strict=True):
        if len(column) != count:
            raise ValueError(f'{name} has {len(column)} label maps for {count} images')
        for index, (size, labels) in enumerate(zip(sizes, column, strict=True)):
            if np.shape(labels) != size:
                raise ValueError(
                    f'{name} of image {index} has size {np.shape(labels)} but {reference} has {size}; resize and crop '
                    'as for the prediction'
                )
    return columns, checked


def _paint(labels: np.ndarray, palette: np.ndarray, ignore_index: int | None, row: int) -> np.ndarray:
    labels = np.asarray(labels)
    colours = np.broadcast_to(IGNORED_COLOUR, (*labels.shape, 3)).copy()
    kept = np.ones(labels.shape, dtype=bool) if ignore_index is None else labels != ignore_index
    outside = kept & ((labels < 0) | (labels >= len(palette)))
    if outside.any():
        raise ValueError(
            f'label {labels[outside][0]} of image {row} has no colour: the palette has {len(palette)}, for labels '
            f'0..{len(palette) - 1}'
        )
    colours[kept] = palette[labels[kept]]
    return colours
