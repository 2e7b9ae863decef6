"""The hosts."""

from omh_mmseg.models.segmentors.base import HostStep, UnsupervisedSegmentor
from omh_mmseg.models.segmentors.hidden_positives import HiddenPositives
from omh_mmseg.models.segmentors.smooseg import SmooSeg
from omh_mmseg.models.segmentors.stego import STEGO

__all__ = ['HiddenPositives', 'HostStep', 'STEGO', 'SmooSeg', 'UnsupervisedSegmentor']
