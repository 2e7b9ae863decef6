"""Projection of frozen features to the code (docs/methods/features.md 2)."""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import SIZE, ranges


@MODELS.register_module()
class ProjectionHead(BaseModule):
    """Sum of a linear and a non-linear branch of 1x1 convolutions, each on its own channel-dropped input.

    Args:
        in_channels: C of the backbone's feature map.
        channels: D of the code.
        act_cfg: Activation of the non-linear branch; ReLU for STEGO and HP, SiLU for SmooSeg.
        dropout_ratio: Probability of dropping a whole channel, in [0, 1); every use draws its own mask.
        nonlinear: Without it only the linear branch exists.
        num_classes: Number of classes of the segmentor; mmseg's inference helpers read it here.
        init_cfg: See mmengine.

    Raises:
        ValueError: If a size is below 1 or the dropout ratio lies outside [0, 1).

    Source: docs/methods/features.md 1.6, 2.1, 2.2.
    """

    @ranges(in_channels=SIZE, channels=SIZE, dropout_ratio='[0, 1)', num_classes=SIZE)
    def __init__(
        self,
        in_channels: int,
        channels: int,
        act_cfg: dict[str, Any] | None = None,
        dropout_ratio: float = 0.1,
        nonlinear: bool = True,
        num_classes: int | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.channels = channels
        self.num_classes = num_classes
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.linear = nn.Conv2d(in_channels, channels, 1)
        self.nonlinear = (
            nn.Sequential(
                nn.Conv2d(in_channels, in_channels, 1),
                build_activation_layer(act_cfg or dict(type='ReLU')),
                nn.Conv2d(in_channels, channels, 1),
            )
            if nonlinear
            else None
        )

    def forward(self, features: Tensor) -> Tensor:
        """Code (B, D, h, w) of features (B, C, h, w)."""
        code = self.linear(self.dropout(features))
        if self.nonlinear is not None:
            code = code + self.nonlinear(self.dropout(features))
        return code

    def drop(self, features: Tensor) -> Tensor:
        """Features with a mask of their own; these, not the clean ones, enter the hosts' losses."""
        return self.dropout(features)
