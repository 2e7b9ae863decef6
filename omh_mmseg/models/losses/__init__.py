"""One loss per file."""

from omh_mmseg.models.losses.class_frequency_loss import ClassFrequencyLoss
from omh_mmseg.models.losses.cluster_loss import ClusterLoss
from omh_mmseg.models.losses.hidden_positive_loss import HiddenPositiveLoss
from omh_mmseg.models.losses.hierarchy_matching_loss import HierarchyMatchingLoss
from omh_mmseg.models.losses.smoothness_energy_loss import SmoothnessEnergyLoss
from omh_mmseg.models.losses.stego_correlation_loss import STEGOCorrelationLoss

__all__ = [
    'ClassFrequencyLoss',
    'ClusterLoss',
    'HiddenPositiveLoss',
    'HierarchyMatchingLoss',
    'STEGOCorrelationLoss',
    'SmoothnessEnergyLoss',
]
