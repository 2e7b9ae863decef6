"""The adapter that freezes any registered backbone, and the vision transformer that the mm packages lack."""

from omh_mmseg.models.backbones.checkpoint import load_backbone_weights, read_state_dict
from omh_mmseg.models.backbones.frozen_backbone import BackboneTaps, FrozenBackbone
from omh_mmseg.models.backbones.key_converters import KEY_CONVERTERS, dino_to_mmpretrain, dinov2_to_mmpretrain
from omh_mmseg.models.backbones.register_vit import RegisterViT

__all__ = [
    'KEY_CONVERTERS',
    'BackboneTaps',
    'FrozenBackbone',
    'RegisterViT',
    'dino_to_mmpretrain',
    'dinov2_to_mmpretrain',
    'load_backbone_weights',
    'read_state_dict',
]
