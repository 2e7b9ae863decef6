"""The adapter that freezes any registered backbone."""

from omh_mmseg.models.backbones.checkpoint import (
    dino_to_mmpretrain,
    dinov2_to_mmpretrain,
    load_backbone_weights,
    read_state_dict,
)
from omh_mmseg.models.backbones.frozen_backbone import BackboneTaps, FrozenBackbone

__all__ = [
    'BackboneTaps',
    'FrozenBackbone',
    'dino_to_mmpretrain',
    'dinov2_to_mmpretrain',
    'load_backbone_weights',
    'read_state_dict',
]
