"""Registered model parts: frozen backbones, heads, losses, OMH, segmentors."""

from omh_mmseg.models import backbones, decode_heads, losses, omh, prediction, segmentors
from omh_mmseg.models.data_preprocessor import ViewsDataPreprocessor
from omh_mmseg.models.prediction.cluster_assignment import ClusterAssignment

__all__ = [
    'ClusterAssignment',
    'ViewsDataPreprocessor',
    'backbones',
    'decode_heads',
    'losses',
    'omh',
    'prediction',
    'segmentors',
]
