"""One loss per file."""

from omh_mmseg.models.losses.cluster_loss import ClusterLoss, cluster_loss
from omh_mmseg.models.losses.hierarchy_matching_loss import HierarchyMatchingLoss
from omh_mmseg.models.losses.stego_correlation_loss import (
    STEGOCorrelationLoss,
    correlation_term,
    sample_positions,
    super_permutation,
)

__all__ = [
    'ClusterLoss',
    'HierarchyMatchingLoss',
    'STEGOCorrelationLoss',
    'cluster_loss',
    'correlation_term',
    'sample_positions',
    'super_permutation',
]
