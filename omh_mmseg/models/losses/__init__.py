"""One loss per file."""

from omh_mmseg.models.losses.cluster_loss import ClusterLoss, cluster_loss
from omh_mmseg.models.losses.hidden_positive_contrast import draw_random_negatives, hidden_positive_contrast
from omh_mmseg.models.losses.hidden_positive_loss import HiddenPositiveLoss, consistency_distance
from omh_mmseg.models.losses.hierarchy_matching_loss import HierarchyMatchingLoss
from omh_mmseg.models.losses.local_positives import feature_affinity, mix_neighbours, neighbour_weights
from omh_mmseg.models.losses.smoothness_energy_loss import SmoothnessEnergyLoss, image_moments, smoothness_energy
from omh_mmseg.models.losses.stego_correlation_loss import (
    STEGOCorrelationLoss,
    correlation_term,
    sample_positions,
    super_permutation,
)

__all__ = [
    'ClusterLoss',
    'HiddenPositiveLoss',
    'HierarchyMatchingLoss',
    'STEGOCorrelationLoss',
    'SmoothnessEnergyLoss',
    'cluster_loss',
    'consistency_distance',
    'correlation_term',
    'draw_random_negatives',
    'feature_affinity',
    'hidden_positive_contrast',
    'image_moments',
    'mix_neighbours',
    'neighbour_weights',
    'sample_positions',
    'smoothness_energy',
    'super_permutation',
]
