"""No projection: the frozen features are the code."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor

from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import SIZE, ranges


@MODELS.register_module()
class IdentityHead(BaseModule):
    """Hands features on as the code, of the same channels and lengths, and drops nothing.

    Args:
        in_channels: C of the backbone's feature map.
        num_classes: Number of classes of the segmentor; mmseg's inference helpers read it here.

    Source: docs/methods/primaps.md 1.
    """

    @ranges(in_channels=SIZE, num_classes=SIZE)
    def __init__(self, in_channels: int, num_classes: int | None = None) -> None:
        super().__init__()
        self.channels, self.num_classes = in_channels, num_classes

    def forward(self, features: Tensor) -> Tensor:
        """Code (B, C, h, w) of features (B, C, h, w)."""
        return features

    drop = forward
