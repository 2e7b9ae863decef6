"""Matching of clusters to classes, and metrics."""

from omh_mmseg.evaluation.hierarchy_agreement import ParentAgreement, parent_agreement
from omh_mmseg.evaluation.matching import (
    UNMATCHED,
    SegmentationScores,
    confusion_matrix,
    hungarian_assignment,
    identity_assignment,
    scores_from_confusion,
)
from omh_mmseg.evaluation.metrics import UnsupervisedIoUMetric

__all__ = [
    'UNMATCHED',
    'ParentAgreement',
    'SegmentationScores',
    'UnsupervisedIoUMetric',
    'confusion_matrix',
    'hungarian_assignment',
    'identity_assignment',
    'parent_agreement',
    'scores_from_confusion',
]
