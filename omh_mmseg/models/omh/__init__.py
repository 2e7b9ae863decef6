"""OMH: parallel clusterings of the code, related by optimal transport."""

from omh_mmseg.models.omh.head import OMHHead
from omh_mmseg.models.omh.level_sizes import expand_levels

__all__ = ['OMHHead', 'expand_levels']
