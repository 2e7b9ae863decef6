"""Registered model parts: frozen backbones, heads, losses, segmentors."""

from omh_mmseg.models import backbones, decode_heads, losses, segmentors
from omh_mmseg.models.data_preprocessor import ViewsDataPreprocessor

__all__ = ['ViewsDataPreprocessor', 'backbones', 'decode_heads', 'losses', 'segmentors']
