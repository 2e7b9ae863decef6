"""The adapter that freezes any registered backbone, and the vision transformer that the mm packages lack."""

from omh_mmseg.models.backbones.frozen_backbone import FrozenBackbone
from omh_mmseg.models.backbones.register_vit import RegisterViT

__all__ = ['FrozenBackbone', 'RegisterViT']
