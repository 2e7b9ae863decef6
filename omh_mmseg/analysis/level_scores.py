"""Every level of clusters against labels of every granularity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from omh_mmseg.analysis.level_counts import count_levels, labelled_loader, load_levels, run_names
from omh_mmseg.evaluation.scores import (
    adjusted_rand_index,
    hungarian_assignment,
    majority_assignment,
    normalised_mutual_information,
    scores_from_confusion,
)
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.utils.files import write_text
from omh_mmseg.utils.tables import PathLike, list_files, markdown_table, summarise, with_spreads, write_csv
from omh_mmseg.visualization.level_scores import draw_level_scores

FIGURES = ('mIoU', 'aAcc', 'majority_mIoU', 'majority_aAcc', 'NMI', 'ARI')


def level_scores(counts: Mapping[str, np.ndarray], granularities: Sequence[Granularity]) -> list[dict[str, Any]]:
    """Score each head against each granularity.

    One-to-one matching makes sense only where a head has as many clusters as there are classes: ``mIoU`` and ``aAcc``
    are NaN elsewhere. Many-to-one matching (``majority_*``) is defined everywhere but rises with the number of
    clusters by itself; NMI and ARI need no matching, and ARI alone is corrected for chance.

    Args:
        counts: By head the pixels of each cluster and finest label, (K, finest labels).
        granularities: What the labels can be merged to.

    Returns:
        Rows with ``head``, ``clusters``, ``labels``, ``classes`` and ``FIGURES``: the first four in percent, NMI and
        ARI at most 1. Classes without a pixel are left out of both means, so that granularities compare.
    """
    rows = []
    for head, table in counts.items():
        for granularity in granularities:
            merged = granularity.merge(table)
            clusters, classes = merged.shape
            row: dict[str, Any] = dict(head=head, clusters=clusters, labels=granularity.name, classes=classes)
            row |= dict.fromkeys(FIGURES, float('nan'))
            if clusters == classes:
                scores = scores_from_confusion(merged, hungarian_assignment(merged), 'leave_out')
                row.update(mIoU=scores.mean_iou, aAcc=scores.pixel_accuracy)
            scores = scores_from_confusion(merged, majority_assignment(merged), 'leave_out')
            row.update(majority_mIoU=scores.mean_iou, majority_aAcc=scores.pixel_accuracy)
            row.update(NMI=normalised_mutual_information(merged), ARI=adjusted_rand_index(merged))
            rows.append(row)
    return rows


def analyse_scores(
    config: Config,
    checkpoints: Sequence[str],
    out: PathLike,
    split: str = 'val',
    images: int | None = None,
    groups: str | None = None,
    device: str | None = None,
) -> str:
    """Every level, and the host's probe, against labels of every granularity.

    Args:
        config: Of the models and their data.
        checkpoints: Of one or several seeds.
        out: Folder of ``scores.csv``, ``level_scores.md`` and ``level_scores.png``.
        split: Labelled images.
        images: Only the first so many.
        groups: See `omh_mmseg.datasets.granularity.read_groups`.
        device: See `load_levels`.

    Returns:
        The table as text.
    """
    loader, granularities = labelled_loader(config, split, images, groups)
    models = [load_levels(config, checkpoint, device) for checkpoint in checkpoints]
    counted = count_levels([[model] for model in models], loader, len(granularities[-1].table))
    rows = [
        dict(run=name) | row
        for name, model in zip(run_names(checkpoints), counted.models)
        for row in level_scores(model.heads, granularities)
    ]
    summary, out = summarise(rows, ('head', 'clusters', 'labels', 'classes'), FIGURES), Path(out)
    text = markdown_table(with_spreads(summary, FIGURES, 2))
    paths = [write_csv(out / 'scores.csv', rows), write_text(out / 'level_scores.md', f'{text}\n')]
    paths.append(draw_level_scores(out / 'level_scores.png', summary))
    return f'{text}\n\n{list_files(paths)}'
