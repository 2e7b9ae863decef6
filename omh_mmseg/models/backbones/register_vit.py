"""Vision transformers with register tokens, which mmpretrain does not have."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import ranges


@MODELS.register_module()
class RegisterViT(VisionTransformer):
    """A vision transformer with learned tokens between CLS and the patches, such as DINOv2's with registers.

    The registers have no position. The positional embedding is resized to the grid of the images by size, bicubic and
    antialiased, as DINOv2's models with registers do; ``position_interpolation`` of `FrozenBackbone` stays None.

    Args:
        num_registers: R, at least 1.
        **kwargs: As for ``mmpretrain.VisionTransformer``; with a class token.

    Raises:
        ValueError: If there are no registers, or there is no class token.

    Source: Darcet et al., Vision Transformers Need Registers, ICLR 2024.
    """

    @ranges(num_registers='[1, 1024]')
    def __init__(self, num_registers: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_registers < 1 or self.cls_token is None:
            raise ValueError(
                f'RegisterViT needs a class token and at least 1 register, got num_registers={num_registers} and '
                f'with_cls_token={self.with_cls_token}; without registers use mmpretrain.VisionTransformer.'
            )
        self.num_registers = num_registers
        self.register_tokens = nn.Parameter(torch.zeros(1, num_registers, self.embed_dims))

    def init_weights(self) -> None:
        """As mmpretrain's; the registers start almost at 0, as CLS does in DINOv2."""
        super().init_weights()
        if not (isinstance(self.init_cfg, dict) and self.init_cfg['type'] == 'Pretrained'):
            nn.init.normal_(self.register_tokens, std=1e-6)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the blocks in ``out_indices``, of the form ``out_type``, of images (B, 3, H, W)."""
        patches, grid = self.patch_embed(images)  # (B, n, C)
        cls, positions = self.cls_token + self.pos_embed[:, :1], self._positions(grid)
        extra = [token.expand(len(images), -1, -1) for token in (cls, self.register_tokens)]
        tokens = self.pre_norm(self.drop_after_pos(torch.cat([*extra, patches + positions], dim=1)))
        outputs = []
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if index == len(self.layers) - 1 and self.final_norm:
                tokens = self.ln1(tokens)
            if index in self.out_indices:
                outputs.append(self._format_output(tokens, grid))
        return tuple(outputs)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        stored = self.pos_embed[:, 1:]
        if tuple(grid) == tuple(self.patch_resolution):
            return stored
        maps = stored.float().transpose(1, 2).unflatten(2, tuple(self.patch_resolution))
        resized = F.interpolate(maps, size=tuple(grid), mode='bicubic', align_corners=False, antialias=True)
        return resized.flatten(2).transpose(1, 2).to(stored.dtype)

    def _format_output(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.out_type == 'raw':
            return tokens
        patches = tokens[:, 1 + self.num_registers :]
        return super()._format_output(torch.cat([tokens[:, :1], patches], dim=1), grid)
