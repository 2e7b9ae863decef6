"""Levels against granularities."""

from __future__ import annotations

import numpy as np
import pytest

from omh_mmseg.analysis.level_scores import level_scores
from omh_mmseg.analysis.trees import merged_counts
from omh_mmseg.datasets import DemoScenes

GRANULARITIES = DemoScenes.GRANULARITIES


def test_clusters_that_are_the_classes_are_perfect_at_their_level_only():
    parents = [GRANULARITIES[1].parents_in(GRANULARITIES[0]), GRANULARITIES[2].parents_in(GRANULARITIES[1])]
    counts = merged_counts(np.diag(np.arange(1, 25))[::-1], [parents[0], parents[1][::-1]], [6, 12, 24])
    rows = {
        (row['head'], row['labels']): row
        for row in level_scores({f'level{n}': own for n, own in enumerate(counts, 1)}, GRANULARITIES)
    }
    assert len(rows) == 9
    for number, one in enumerate(GRANULARITIES, start=1):
        row = rows[f'level{number}', one.name]
        assert (row['clusters'], row['classes']) == (len(one.classes), len(one.classes))
        assert [row[key] for key in ('mIoU', 'aAcc', 'majority_mIoU')] == pytest.approx([100] * 3)
        assert (row['NMI'], row['ARI']) == pytest.approx((1, 1))
    fine_in_coarse, coarse_in_fine = rows['level3', 'group'], rows['level1', 'part']
    assert fine_in_coarse['majority_mIoU'] == 100 and np.isnan(fine_in_coarse['mIoU'])
    assert coarse_in_fine['majority_mIoU'] < 20 and coarse_in_fine['majority_aAcc'] < 50


def test_classes_without_pixels_are_left_out():
    counts = np.zeros((24, 24), int)
    counts[:3, :3] = np.diag([5, 6, 7])
    row = level_scores({'level3': counts}, GRANULARITIES)[-1]
    assert row['mIoU'] == row['majority_mIoU'] == 100
