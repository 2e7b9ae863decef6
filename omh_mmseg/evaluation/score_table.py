"""Scores of one head as a table for the log and as CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from prettytable import PrettyTable

from omh_mmseg.evaluation.scores import SegmentationScores
from omh_mmseg.structures.assignment import UNMATCHED
from omh_mmseg.utils.files import replaced_when_complete


def describe_scores(
    name: str,
    matching: str,
    scores: SegmentationScores,
    classes: Sequence[str],
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> str:
    """Means, per-class table and what the reader must know of absent classes and leftover clusters.

    Args:
        name: Of the head.
        matching: How its clusters came to classes.
        scores: Its scores.
        classes: Names.
        intervals: Lower and upper end by ``'mIoU'`` and ``'aAcc'``.
    """
    figures = dict(mIoU=scores.mean_iou, aAcc=scores.pixel_accuracy)
    texts = []
    for key, value in figures.items():
        low_high = '' if not intervals else ' [{:.2f}, {:.2f}]'.format(*intervals[key])
        texts.append(f'{key} {value:.2f}{low_high}')
    table = PrettyTable(['Class', 'Cluster', 'IoU', 'Acc'])
    for row in class_rows(scores, classes):
        table.add_row([row['class'], row['clusters'] or '-', f'{row["iou"]:.2f}', f'{row["accuracy"]:.2f}'])
    lines = [f'{name} ({matching}): {", ".join(texts)}', table.get_string()]
    if scores.absent:
        absent = (f'{classes[k]} ({"left out" if np.isnan(scores.iou[k]) else "counts as 0"})' for k in scores.absent)
        lines.append(f'without ground truth: {", ".join(absent)}')
    left_over = np.flatnonzero(scores.assignment == UNMATCHED)
    missed = int(scores.counts[left_over].sum())
    if missed:
        lines.append(
            f'clusters without a class: {", ".join(map(str, left_over))}; their {missed} pixels '
            f'({missed / scores.counts.sum():.2%}) count as missed'
        )
    return '\n'.join(lines)


def class_rows(scores: SegmentationScores, classes: Sequence[str]) -> list[dict[str, object]]:
    """One row per class: ``class``, ``clusters`` (space-separated), ``iou`` and ``accuracy`` in percent, ``pixels``."""
    pixels = scores.counts.sum(axis=0)
    return [
        {
            'class': name,
            'clusters': ' '.join(map(str, np.flatnonzero(scores.assignment == label))),
            'iou': float(scores.iou[label]),
            'accuracy': float(scores.accuracy[label]),
            'pixels': int(pixels[label]),
        }
        for label, name in enumerate(classes)
    ]


def write_class_csv(path: str | os.PathLike[str], scores: SegmentationScores, classes: Sequence[str]) -> Path:
    """Write `class_rows` as CSV."""
    rows = class_rows(scores, classes)
    return _write_csv(path, [list(rows[0]), *(list(row.values()) for row in rows)])


def write_confusion_csv(path: str | os.PathLike[str], scores: SegmentationScores, classes: Sequence[str]) -> Path:
    """Write the count matrix: a row per cluster with its number, its class (empty for none) and its pixels by class."""
    header: list[object] = ['cluster', 'assigned', *classes]
    rows: list[list[object]] = [
        [cluster, '' if label == UNMATCHED else classes[label], *counts]
        for cluster, (label, counts) in enumerate(
            zip(scores.assignment.tolist(), scores.counts.tolist(), strict=True)
        )
    ]
    return _write_csv(path, [header, *rows])


def _write_csv(path: str | os.PathLike[str], rows: Sequence[Sequence[object]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    with replaced_when_complete(path) as file:
        file.write(text.getvalue().encode())
    return Path(path)
