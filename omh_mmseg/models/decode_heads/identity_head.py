"""No projection: the frozen features are the code."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import SIZE, ranges


@MODELS.register_module()
class IdentityHead(BaseModule):
    """Hands features on as the code, of the same channels and lengths.

    Args:
        in_channels: C of the backbone's feature map.
        num_classes: Number of classes of the segmentor; mmseg's inference helpers read it here.
        init_cfg: See mmengine.

    Source: docs/methods/primaps.md 1.
    """

    @ranges(in_channels=SIZE, num_classes=SIZE)
    def __init__(
        self, in_channels: int, num_classes: int | None = None, init_cfg: dict[str, Any] | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.channels = in_channels
        self.num_classes = num_classes

    def forward(self, features: Tensor) -> Tensor:
        """Code (B, C, h, w) of features (B, C, h, w)."""
        return features

    def drop(self, features: Tensor) -> Tensor:
        """The features: nothing is dropped."""
        return features
