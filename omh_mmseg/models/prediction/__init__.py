"""From code to masks."""

from omh_mmseg.models.prediction.cluster_assignment import ClusterAssignment
from omh_mmseg.models.prediction.code_tta import CodeAveragingTTA

__all__ = ['ClusterAssignment', 'CodeAveragingTTA']
