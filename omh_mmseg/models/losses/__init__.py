"""One loss per file."""

from omh_mmseg.models.losses.adaptive_correspondence_loss import AdaptiveCorrespondenceLoss
from omh_mmseg.models.losses.class_frequency_loss import ClassFrequencyLoss
from omh_mmseg.models.losses.cluster_loss import ClusterLoss
from omh_mmseg.models.losses.eigen_cue import EigenCue
from omh_mmseg.models.losses.hidden_positive_loss import HiddenPositiveLoss
from omh_mmseg.models.losses.hierarchy_matching_loss import HierarchyMatchingLoss
from omh_mmseg.models.losses.object_contrast_loss import ObjectContrastLoss
from omh_mmseg.models.losses.smoothness_energy_loss import SmoothnessEnergyLoss
from omh_mmseg.models.losses.stego_correlation_loss import STEGOCorrelationLoss
from omh_mmseg.models.losses.temporal_consistency_loss import TemporalConsistencyLoss

__all__ = [
    'AdaptiveCorrespondenceLoss', 'ClassFrequencyLoss', 'ClusterLoss', 'EigenCue', 'HiddenPositiveLoss',
    'HierarchyMatchingLoss', 'ObjectContrastLoss', 'STEGOCorrelationLoss', 'SmoothnessEnergyLoss',
    'TemporalConsistencyLoss',
]  # fmt: skip
