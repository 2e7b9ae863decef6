"""Registered model parts: frozen backbones, heads, losses, segmentors."""

from omh_mmseg.models import backbones, decode_heads, losses, segmentors
from omh_mmseg.models.cluster_assignment import ClusterAssignment
from omh_mmseg.models.data_preprocessor import ViewsDataPreprocessor

__all__ = ['ClusterAssignment', 'ViewsDataPreprocessor', 'backbones', 'decode_heads', 'losses', 'segmentors']
