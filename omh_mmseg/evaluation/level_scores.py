"""Every level of clusters against labels of every granularity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omh_mmseg.datasets.granularity import Granularity
from omh_mmseg.evaluation.clustering_scores import adjusted_rand_index, normalised_mutual_information
from omh_mmseg.evaluation.matching import hungarian_assignment, majority_assignment, scores_from_confusion

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
    for head, own in counts.items():
        for one in granularities:
            merged = one.merge(own)
            clusters, classes = merged.shape
            row: dict[str, Any] = dict(head=head, clusters=clusters, labels=one.name, classes=classes)
            row.update(dict.fromkeys(FIGURES, float('nan')))
            if clusters == classes:
                scores = scores_from_confusion(merged, hungarian_assignment(merged), 'leave_out')
                row.update(mIoU=scores.mean_iou, aAcc=scores.pixel_accuracy)
            scores = scores_from_confusion(merged, majority_assignment(merged), 'leave_out')
            row.update(majority_mIoU=scores.mean_iou, majority_aAcc=scores.pixel_accuracy)
            row.update(NMI=normalised_mutual_information(merged), ARI=adjusted_rand_index(merged))
            rows.append(row)
    return rows
