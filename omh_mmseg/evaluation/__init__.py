"""Matching of clusters to classes, and metrics."""

from omh_mmseg.evaluation.assignment_file import read_assignment, write_assignment
from omh_mmseg.evaluation.bootstrap import PoissonBootstrap, percentile_interval
from omh_mmseg.evaluation.clustering_scores import adjusted_rand_index, normalised_mutual_information
from omh_mmseg.evaluation.hierarchy_agreement import ParentAgreement, parent_agreement
from omh_mmseg.evaluation.matching import (
    UNMATCHED,
    SegmentationScores,
    confusion_matrix,
    hungarian_assignment,
    identity_assignment,
    majority_assignment,
    match_clusters,
    scores_from_confusion,
    without_extra_clusters,
)
from omh_mmseg.evaluation.metrics import UnsupervisedIoUMetric

__all__ = [
    'UNMATCHED',
    'ParentAgreement',
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
    'parent_agreement',
    'percentile_interval',
    'read_assignment',
    'scores_from_confusion',
    'without_extra_clusters',
    'write_assignment',
]
