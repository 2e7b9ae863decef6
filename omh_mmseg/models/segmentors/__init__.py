"""The hosts."""

from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor
from omh_mmseg.models.segmentors.eagle import EAGLE
from omh_mmseg.models.segmentors.hidden_positives import HiddenPositives
from omh_mmseg.models.segmentors.primaps import PriMaPs
from omh_mmseg.models.segmentors.smooseg import SmooSeg
from omh_mmseg.models.segmentors.stego import STEGO
from omh_mmseg.structures.host_step import HostStep

__all__ = ['EAGLE', 'HiddenPositives', 'HostStep', 'PriMaPs', 'STEGO', 'SmooSeg', 'UnsupervisedSegmentor']
