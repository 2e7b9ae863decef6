"""One adapter that freezes any registered backbone and says what it offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from torch import Tensor

from omh_mmseg.models.backbones.checkpoint import load_backbone_weights
from omh_mmseg.registry import MODELS

DRY_RUN_SIZE = 224


@MODELS.register_module()
class FrozenBackbone(BaseModule):
    """Frozen feature map of any backbone in the registries of mmseg, mmpretrain and (through them) timm.

    The wrapped backbone stays in eval mode and without gradient after any ``train()`` of a parent. Several of its
    maps can be selected; they are resized bilinearly to the finest of them and concatenated.

    Args:
        backbone: Config of the wrapped backbone, e.g. ``dict(type='mmpretrain.ResNet', depth=50, ...)``. It must
            return feature maps (B, C, h, w), alone or in a sequence.
        checkpoint: Weights: a local path, a URL, or ``omh_mmseg://NAME`` for those shipped with the library. None
            leaves the wrapped backbone as its own ``init_cfg`` makes it.
        key_converter: Name of the layout to convert from, see `load_backbone_weights`; None if the keys fit.
        out_indices: Which of the returned maps to use, as indices of the sequence.
        out_channels: C of the result; found by a dry run if None.
        stride: Input pixels per position; found by a dry run if None.
        init_cfg: See mmengine.

    Attributes:
        out_channels: C of the result.
        stride: Input pixels per position.

    Raises:
        ValueError: If the type is not registered, or the backbone returns no feature map at ``out_indices``.

    Source: METHODS.md 1.3.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        checkpoint: str | None = None,
        key_converter: str | None = None,
        out_indices: int | Sequence[int] = -1,
        out_channels: int | None = None,
        stride: int | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.checkpoint = checkpoint
        self.key_converter = key_converter
        self.out_indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        if not self.out_indices:
            raise ValueError("out_indices is empty; name at least one of the backbone's maps, e.g. -1 for the last.")
        self.backbone = _build(backbone)
        self.train(self.training)
        if out_channels is None or stride is None:
            found_channels, found_stride = self._dry_run()
            out_channels, stride = out_channels or found_channels, stride or found_stride
        self.out_channels = out_channels
        self.stride = stride

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Set the mode of the adapter; the wrapped backbone always stays frozen in eval mode."""
        super().train(mode)
        # Some backbones thaw stages in their own train(), and some return None from eval(): no chaining.
        self.backbone.eval()
        self.backbone.requires_grad_(False)
        return self

    def init_weights(self) -> None:
        """Load ``checkpoint``, or without one initialise the wrapped backbone as its ``init_cfg`` says.

        Raises:
            FileNotFoundError: If the checkpoint is absent.
            ValueError: If it does not fit the backbone.
        """
        if self.is_init:
            return
        if self.checkpoint is not None:
            # Strict loading leaves nothing for the backbone's own initialisation to do.
            load_backbone_weights(self.backbone, self.checkpoint, self.key_converter)
            self._is_init = True
            return
        super().init_weights()
        if getattr(self.backbone, 'init_cfg', None) is None:
            MMLogger.get_current_instance().warning(
                'The frozen backbone has random weights: neither model.backbone.checkpoint nor an init_cfg is set.'
            )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w) of normalised images (B, 3, H, W)."""
        maps = self._select(self.backbone(images))
        if len(maps) == 1:
            return maps[0]
        size = max((item.shape[-2:] for item in maps), key=lambda shape: shape[0] * shape[1])
        return torch.cat([_resize(item, size) for item in maps], dim=1)

    def _select(self, outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        name = type(self.backbone).__name__
        try:
            selected = [outputs[index] for index in self.out_indices]
        except IndexError:
            raise ValueError(
                f'{name} returns {len(outputs)} outputs, out_indices asks for {self.out_indices}. '
                'Choose among them, or set the out_indices of the wrapped backbone.'
            ) from None
        for index, item in zip(self.out_indices, selected):
            if not isinstance(item, Tensor) or item.dim() != 4:
                shape = tuple(item.shape) if isinstance(item, Tensor) else type(item).__name__
                raise ValueError(
                    f'Output {index} of {name} is {shape}, not a feature map (B, C, h, w). '
                    "Vision transformers of mmpretrain give one with out_type='featmap'."
                )
        return selected

    @torch.no_grad()
    def _dry_run(self) -> tuple[int, int]:
        features = self(torch.zeros(1, 3, DRY_RUN_SIZE, DRY_RUN_SIZE))
        return features.shape[1], round(DRY_RUN_SIZE / features.shape[-1])


def _build(config: dict[str, Any]) -> torch.nn.Module:
    try:
        return MODELS.build(config)
    except KeyError as error:
        if 'registry' not in str(error):
            raise
        raise ValueError(
            f"Backbone type {config.get('type')!r} is not registered. Use a name of mmseg's registry "
            "('SwinTransformer', 'ResNetV1c', ...), one of mmpretrain's ('mmpretrain.VisionTransformer', "
            "'mmpretrain.ResNet', ...), or dict(type='mmpretrain.TIMMBackbone', model_name=..., features_only=True) "
            'for a timm model; a backbone of your own needs its module in custom_imports.'
        ) from error


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=False)
