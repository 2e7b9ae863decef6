"""DINOv2's weights in mmpretrain's transformer, against its blocks written out in plain torch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.models.backbones import FrozenBackbone
from omh_mmseg.models.backbones.key_converters import dinov2_to_mmpretrain

DIMS, DEPTH, HEADS, PATCH, GRID = 24, 2, 3, 14, 5
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=DIMS, num_layers=DEPTH, num_heads=HEADS, feedforward_channels=4 * DIMS),
    img_size=GRID * PATCH,
    patch_size=PATCH,
    layer_scale_init_value=1e-5,
    out_type='featmap',
)


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Random weights under DINOv2's names, scales far from their start."""
    sizes = {
        'cls_token': (1, 1, DIMS), 'pos_embed': (1, GRID**2 + 1, DIMS), 'mask_token': (1, DIMS),
        'patch_embed.proj.weight': (DIMS, 3, PATCH, PATCH), 'patch_embed.proj.bias': (DIMS,),
        'norm.weight': (DIMS,), 'norm.bias': (DIMS,),
    }  # fmt: skip
    for block in range(DEPTH):
        for name, shape in (
            ('norm1', (DIMS,)), ('attn.qkv', (3 * DIMS, DIMS)), ('attn.proj', (DIMS, DIMS)), ('norm2', (DIMS,)),
            ('mlp.fc1', (4 * DIMS, DIMS)), ('mlp.fc2', (DIMS, 4 * DIMS)),
        ):  # fmt: skip
            sizes |= {f'blocks.{block}.{name}.weight': shape, f'blocks.{block}.{name}.bias': shape[:1]}
        sizes |= {f'blocks.{block}.ls1.gamma': (DIMS,), f'blocks.{block}.ls2.gamma': (DIMS,)}
    return {key: 0.2 * torch.randn(size) for key, size in sizes.items()}


def forward(state: dict[str, Tensor], images: Tensor, positions: Tensor) -> Tensor:
    """Last normalised patch tokens of the transformer, as a map."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (DIMS,), state[f'{name}.weight'], state[f'{name}.bias'], 1e-6)

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ state[f'{name}.weight'].t() + state[f'{name}.bias']

    patches = F.conv2d(images, state['patch_embed.proj.weight'], state['patch_embed.proj.bias'], stride=PATCH)
    grid, x = patches.shape[2:], patches.flatten(2).transpose(1, 2)
    x = torch.cat([state['cls_token'].expand(len(x), -1, -1), x], 1) + positions
    for block in range(DEPTH):
        name = f'blocks.{block}'
        q, k, v = (
            item.unflatten(2, (HEADS, -1)).transpose(1, 2)
            for item in dense(norm(x, f'{name}.norm1'), f'{name}.attn.qkv').chunk(3, dim=2)
        )
        mixed = (q @ k.transpose(2, 3) / math.sqrt(DIMS // HEADS)).softmax(3) @ v
        x = x + state[f'{name}.ls1.gamma'] * dense(mixed.transpose(1, 2).flatten(2), f'{name}.attn.proj')
        hidden = F.gelu(dense(norm(x, f'{name}.norm2'), f'{name}.mlp.fc1'))
        x = x + state[f'{name}.ls2.gamma'] * dense(hidden, f'{name}.mlp.fc2')
    return norm(x, 'norm')[:, 1:].transpose(1, 2).unflatten(2, tuple(grid))


@pytest.fixture
def backbone(state, tmp_path) -> FrozenBackbone:
    torch.save(state, tmp_path / 'dinov2.pth')
    made = FrozenBackbone(VIT, str(tmp_path / 'dinov2.pth'), 'dinov2', position_interpolation='dino')
    made.init_weights()
    return made


def test_features_at_the_native_size(backbone, state):
    images = torch.randn(2, 3, GRID * PATCH, GRID * PATCH)
    torch.testing.assert_close(backbone(images), forward(state, images, state['pos_embed']), rtol=1e-4, atol=1e-5)


def test_features_at_another_size(backbone, state):
    """The positional embedding grows by DINO's factor (n + 0.1) / n_native."""
    images = torch.randn(1, 3, 7 * PATCH, 6 * PATCH)
    patches = state['pos_embed'][:, 1:].transpose(1, 2).unflatten(2, (GRID, GRID))
    factors = (7.1 / GRID, 6.1 / GRID)
    resized = F.interpolate(patches, scale_factor=factors, mode='bicubic', recompute_scale_factor=False)
    positions = torch.cat([state['pos_embed'][:, :1], resized.flatten(2).transpose(1, 2)], 1)
    torch.testing.assert_close(backbone(images), forward(state, images, positions), rtol=1e-4, atol=1e-5)


def test_every_weight_but_the_mask_token_is_used(state):
    converted = dinov2_to_mmpretrain(state)
    assert len(converted) == len(state) - 1 and 'mask_token' not in converted
    assert torch.equal(converted['layers.1.attn.gamma1.weight'], state['blocks.1.ls1.gamma'])
    assert torch.equal(converted['layers.0.ffn.gamma2.weight'], state['blocks.0.ls2.gamma'])


def test_a_transformer_without_scales_is_told_apart(state, tmp_path):
    torch.save(state, tmp_path / 'dinov2.pth')
    config = {key: value for key, value in VIT.items() if key != 'layer_scale_init_value'}
    with pytest.raises(ValueError, match=r'left over layers.0.attn.gamma1.weight'):
        FrozenBackbone(config, str(tmp_path / 'dinov2.pth'), 'dinov2').init_weights()
