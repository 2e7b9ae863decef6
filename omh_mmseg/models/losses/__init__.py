"""One loss per file."""

from omh_mmseg.models.losses.cluster_loss import ClusterLoss
from omh_mmseg.models.losses.hidden_positive_loss import HiddenPositiveLoss
from omh_mmseg.models.losses.hierarchy_matching_loss import HierarchyMatchingLoss
from omh_mmseg.models.losses.smoothness_energy_loss import SmoothnessEnergyLoss
from omh_mmseg.models.losses.stego_correlation_loss import STEGOCorrelationLoss
from omh_mmseg.models.losses.temporal_consistency_loss import TemporalConsistencyLoss

__all__ = [
    'ClusterLoss', 'HiddenPositiveLoss', 'HierarchyMatchingLoss', 'STEGOCorrelationLoss', 'SmoothnessEnergyLoss',
    'TemporalConsistencyLoss',
]  # fmt: skip
