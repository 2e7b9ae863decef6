"""From code to masks."""

from omh_mmseg.models.prediction.cluster_assignment import ClusterAssignment
from omh_mmseg.models.prediction.code_tta import CodeAveragingTTA
from omh_mmseg.models.prediction.mask_proposals import MaskProposals

__all__ = ['ClusterAssignment', 'CodeAveragingTTA', 'MaskProposals']
