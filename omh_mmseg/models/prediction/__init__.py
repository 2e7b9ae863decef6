"""From code to masks."""

from omh_mmseg.models.prediction.cluster_assignment import ClusterAssignment
from omh_mmseg.models.prediction.code_tta import CodeAveragingTTA
from omh_mmseg.models.prediction.options import PredictionOptions
from omh_mmseg.models.prediction.predictor import Predictor

__all__ = ['ClusterAssignment', 'CodeAveragingTTA', 'PredictionOptions', 'Predictor']
