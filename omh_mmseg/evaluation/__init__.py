"""Matching of clusters to classes, and metrics."""

from omh_mmseg.evaluation.bootstrap import PoissonBootstrap, percentile_interval
from omh_mmseg.evaluation.metrics import UnsupervisedIoUMetric
from omh_mmseg.evaluation.scores import (
    SegmentationScores,
    adjusted_rand_index,
    confusion_matrix,
    hungarian_assignment,
    identity_assignment,
    majority_assignment,
    match_clusters,
    normalised_mutual_information,
    scores_from_confusion,
    without_extra_clusters,
)

__all__ = [
    'PoissonBootstrap',
    'SegmentationScores',
    'UnsupervisedIoUMetric',
    'adjusted_rand_index',
    'confusion_matrix',
    'hungarian_assignment',
    'identity_assignment',
    'majority_assignment',
    'match_clusters',
    'normalised_mutual_information',
    'percentile_interval',
    'scores_from_confusion',
    'without_extra_clusters',
]
