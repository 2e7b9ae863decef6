"""DINO's transformer written out: its weights by name and its forward pass, line by line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor


@pytest.fixture
def dino_state() -> Callable[..., dict[str, Tensor]]:
    """``dino_state(embed, depth, patch, grid)``: random weights under DINO's names, MLP ratio 4."""

    def make(embed: int, depth: int, patch: int, grid: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(5)

        def random(*shape: int) -> Tensor:
            return torch.empty(shape).uniform_(-0.1, 0.1, generator=generator)

        state = {
            'cls_token': random(1, 1, embed),
            'pos_embed': random(1, 1 + grid * grid, embed),
            'patch_embed.proj.weight': random(embed, 3, patch, patch),
            'patch_embed.proj.bias': random(embed),
        }
        sizes = {
            'norm1': (embed,), 'attn.qkv': (3 * embed, embed), 'attn.proj': (embed, embed), 'norm2': (embed,),
            'mlp.fc1': (4 * embed, embed), 'mlp.fc2': (embed, 4 * embed),
        }  # fmt: skip
        for block in range(depth):
            for name, shape in sizes.items():
                state[f'blocks.{block}.{name}.weight'] = random(*shape)
                state[f'blocks.{block}.{name}.bias'] = random(shape[0])
        return state | {'norm.weight': 1 + random(embed), 'norm.bias': random(embed)}

    return make


@pytest.fixture
def dino_forward() -> Callable[[dict[str, Tensor], Tensor, int], tuple[Tensor, Tensor]]:
    """``dino_forward(state, images, heads)``: normed tokens (B, C, h, w) and last keys (B, C, h, w),
    docs/methods/features.md 1.
    """

    def run(state: dict[str, Tensor], images: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        weight = state['patch_embed.proj.weight']
        embed, patch = weight.shape[0], weight.shape[-1]
        rows, columns = images.shape[2] // patch, images.shape[3] // patch
        tokens = F.conv2d(images, weight, state['patch_embed.proj.bias'], stride=patch).flatten(2).transpose(1, 2)
        positions = state['pos_embed']
        native = round((positions.shape[1] - 1) ** 0.5)
        if not (rows * columns == native * native and rows == columns):
            grid = positions[:, 1:].reshape(1, native, native, embed).permute(0, 3, 1, 2)
            factor = ((rows + 0.1) / native, (columns + 0.1) / native)
            grid = F.interpolate(grid, scale_factor=factor, mode='bicubic')
            positions = torch.cat([positions[:, :1], grid.permute(0, 2, 3, 1).reshape(1, -1, embed)], 1)
        x = torch.cat([state['cls_token'].expand(len(images), 1, embed), tokens], 1) + positions
        depth = 1 + max(int(key.split('.')[1]) for key in state if key.startswith('blocks.'))
        for block in range(depth):

            def part(name: str, block: int = block) -> tuple[Tensor, Tensor]:
                return state[f'blocks.{block}.{name}.weight'], state[f'blocks.{block}.{name}.bias']

            qkv = F.linear(F.layer_norm(x, (embed,), *part('norm1'), eps=1e-6), *part('attn.qkv'))
            q, k, v = qkv.reshape(*x.shape[:2], 3, heads, embed // heads).permute(2, 0, 3, 1, 4)
            attention = ((q @ k.transpose(-2, -1)) * (embed // heads) ** -0.5).softmax(-1)
            x = x + F.linear((attention @ v).transpose(1, 2).reshape(x.shape), *part('attn.proj'))
            hidden = F.gelu(F.linear(F.layer_norm(x, (embed,), *part('norm2'), eps=1e-6), *part('mlp.fc1')))
            x = x + F.linear(hidden, *part('mlp.fc2'))
        x = F.layer_norm(x, (embed,), state['norm.weight'], state['norm.bias'], eps=1e-6)
        keys = k[:, :, 1:].permute(0, 1, 3, 2).reshape(len(images), embed, rows, columns)
        return x[:, 1:].transpose(1, 2).reshape(len(images), embed, rows, columns), keys

    return run
