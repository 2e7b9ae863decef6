"""The hosts."""

from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor
from omh_mmseg.models.segmentors.stego import STEGO

__all__ = ['STEGO', 'UnsupervisedSegmentor']
