"""Registered model parts: frozen backbones, heads, losses, OMH, segmentors."""

from omh_mmseg.models import backbones, decode_heads, losses, omh, prediction, segmentors
from omh_mmseg.models.data_preprocessor import ViewsDataPreprocessor

__all__ = ['ViewsDataPreprocessor', 'backbones', 'decode_heads', 'losses', 'omh', 'prediction', 'segmentors']
