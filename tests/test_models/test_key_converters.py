"""Checkpoints in the layouts of their authors, built here, in the backbones of mmpretrain and mmseg."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.models.backbones import FrozenBackbone
from omh_mmseg.models.backbones.key_converters import swin_to_mm

RESNET = dict(type='mmpretrain.ResNet', depth=50, base_channels=4, stem_channels=4, out_indices=(2, 3))
SWIN_DIMS, SWIN_DEPTHS, SWIN_HEADS, SWIN_WINDOW = 8, (2, 1, 1, 1), (1, 2, 2, 4), 3
SWIN = {
    'mmpretrain': dict(
        type='mmpretrain.SwinTransformer',
        arch=dict(embed_dims=SWIN_DIMS, depths=SWIN_DEPTHS, num_heads=SWIN_HEADS),
        img_size=96, window_size=SWIN_WINDOW, out_indices=(3,), stage_cfgs=dict(), pad_small_map=True,
    ),
    'mmseg': dict(
        type='SwinTransformer', pretrain_img_size=96, embed_dims=SWIN_DIMS, depths=SWIN_DEPTHS, num_heads=SWIN_HEADS,
        window_size=SWIN_WINDOW, out_indices=(3,),
    ),
}  # fmt: skip


def values(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Distinct random values of the same shapes and types; counters and indices stay as they are."""
    return {
        key: torch.rand_like(value) + 0.5 if value.is_floating_point() else value.clone()
        for key, value in state.items()
    }


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.fixture
def load(tmp_path) -> Callable[..., FrozenBackbone]:
    def write_and_load(content: object, wrapped: dict, converter: str, **options) -> FrozenBackbone:
        torch.save(content, tmp_path / 'weights.pth')
        backbone = FrozenBackbone(wrapped, str(tmp_path / 'weights.pth'), converter, **options)
        backbone.init_weights()
        return backbone

    return write_and_load


# ---- ResNets


@pytest.fixture
def resnet() -> dict[str, Tensor]:
    """torchvision's names, which it shares with mmpretrain: checked against torchvision's own list."""
    from torchvision.models import resnet50

    state = FrozenBackbone(RESNET).backbone.state_dict()
    with torch.device('meta'):
        names = set(resnet50().state_dict())
    assert set(state) == {name for name in names if not name.startswith('fc.')}
    return values(state)


CLASSIFIER = {'fc.weight': torch.zeros(3, 128), 'fc.bias': torch.zeros(3)}
PROJECTION = {'fc.0.weight': torch.zeros(3, 128), 'fc.2.bias': torch.zeros(3)}
LAYOUTS: dict[str, tuple[str, Callable[[dict[str, Tensor]], dict]]] = {
    'torchvision': ('torchvision', lambda state: state | CLASSIFIER),
    'DINO backbone': ('torchvision', lambda state: state),
    'DINO training': (
        'torchvision', lambda state: dict(teacher=prefixed(state, 'backbone.') | {'head.mlp.0.weight': torch.zeros(2)})
    ),
    'MoCo v2': (
        'moco', lambda state: dict(
            epoch=200, arch='resnet50', state_dict=prefixed(state | PROJECTION, 'module.encoder_q.')
            | prefixed(values(state) | PROJECTION, 'module.encoder_k.')
            | {'module.queue': torch.zeros(3, 4), 'module.queue_ptr': torch.zeros(1, dtype=torch.long)},
        ),
    ),
    'MoCo v3': (
        'moco', lambda state: dict(
            state_dict=prefixed(state | PROJECTION, 'module.base_encoder.')
            | prefixed(values(state) | PROJECTION, 'module.momentum_encoder.')
            | {'module.predictor.0.weight': torch.zeros(2)},
        ),
    ),
    'MoCo v3, momentum encoder alone': ('moco', lambda state: prefixed(state, 'module.momentum_encoder.')),
    'DenseCL training': (
        'densecl', lambda state: dict(
            state_dict=prefixed(state, 'encoder_q.0.') | prefixed(state, 'backbone.')
            | prefixed(values(state), 'encoder_k.0.') | {'encoder_q.1.mlp.0.weight': torch.zeros(2)}
            | {f'{name}{end}': torch.zeros(1) for name in ('queue', 'queue2') for end in ('', '_ptr')},
        ),
    ),
    'DenseCL extracted': ('densecl', lambda state: dict(state_dict=state)),
}  # fmt: skip


@pytest.mark.parametrize('name', LAYOUTS)
def test_resnet(load, resnet, name):
    converter, layout = LAYOUTS[name]
    loaded = load(layout(resnet), RESNET, converter).backbone.state_dict()
    assert list(loaded) == list(resnet)
    assert all(torch.equal(loaded[key], value) for key, value in resnet.items())


@pytest.mark.parametrize('name', ['torchvision', 'MoCo v2', 'DenseCL training'])
def test_unknown_entries_are_an_error_that_names_them(load, resnet, name):
    converter, layout = LAYOUTS[name]
    content = layout(resnet)
    content.get('state_dict', content)['module.surprise.weight'] = torch.zeros(1)
    with pytest.raises(ValueError, match=r'does not fit ResNet: missing none; left over surprise\.weight\. Set'):
        load(content, RESNET, converter)
    load(content, RESNET, converter, allow_left_over=['surprise.*'])


def test_weights_of_another_width(load, resnet):
    with pytest.raises(ValueError, match=r'(?s)weights of another architecture.*size mismatch for conv1.weight'):
        load(resnet, RESNET | dict(base_channels=8, stem_channels=8), 'torchvision')


def test_batch_statistics_without_counters(load, resnet):
    """Older files of torchvision have no counters of batches."""
    old = {key: value for key, value in resnet.items() if not key.endswith('num_batches_tracked')}
    loaded = load(old, RESNET, 'torchvision').backbone.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in old.items())


# ---- vision transformers


@pytest.fixture
def timm_vit() -> dict[str, Tensor]:
    """Names of timm, DINO, MAE and MoCo v3 for a ViT of 2 blocks, 24 channels, patch 8, native 32 pixels."""
    sizes = {
        'cls_token': (1, 1, 24), 'pos_embed': (1, 17, 24), 'norm.weight': (24,), 'norm.bias': (24,),
        'patch_embed.proj.weight': (24, 3, 8, 8), 'patch_embed.proj.bias': (24,),
    }  # fmt: skip
    for block in ('blocks.0', 'blocks.1'):
        for name, shape in (
            ('norm1', (24,)), ('attn.qkv', (72, 24)), ('attn.proj', (24, 24)), ('norm2', (24,)),
            ('mlp.fc1', (48, 24)), ('mlp.fc2', (24, 48)),
        ):  # fmt: skip
            sizes |= {f'{block}.{name}.weight': shape, f'{block}.{name}.bias': shape[:1]}
    return {key: torch.randn(size) for key, size in sizes.items()}


HEADS = {'head.weight': torch.zeros(2, 24), 'head.bias': torch.zeros(2)}
MAE_REST = {'mask_token': torch.zeros(1, 1, 8), 'decoder_pos_embed': torch.zeros(1, 2, 8),
            'decoder_blocks.0.norm1.weight': torch.zeros(8)}  # fmt: skip
VIT_LAYOUTS: dict[str, tuple[str, Callable[[dict[str, Tensor]], dict]]] = {
    'timm': ('dino', lambda state: state | HEADS),
    'MAE': ('mae', lambda state: dict(model=state | MAE_REST)),
    'MoCo v3': (
        'moco', lambda state: dict(
            epoch=300, state_dict=prefixed(state | {'head.0.weight': torch.zeros(2)}, 'module.base_encoder.')
            | prefixed(values(state), 'module.momentum_encoder.') | {'module.predictor.0.weight': torch.zeros(2)},
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', VIT_LAYOUTS)
def test_vision_transformer(load, timm_vit, tiny_vit, name):
    converter, layout = VIT_LAYOUTS[name]
    loaded = load(layout(timm_vit), tiny_vit, converter).backbone.state_dict()
    assert len(loaded) == len(timm_vit)
    for ours, theirs in (
        ('layers.1.ln2.bias', 'blocks.1.norm2.bias'), ('layers.0.attn.qkv.weight', 'blocks.0.attn.qkv.weight'),
        ('layers.1.ffn.layers.0.0.weight', 'blocks.1.mlp.fc1.weight'), ('ln1.weight', 'norm.weight'),
        ('layers.0.ffn.layers.1.weight', 'blocks.0.mlp.fc2.weight'), ('pos_embed', 'pos_embed'),
    ):  # fmt: skip
        assert torch.equal(loaded[ours], timm_vit[theirs]), ours


REGISTERS = 3


@pytest.fixture
def dinov2_with_registers(timm_vit) -> dict[str, Tensor]:
    """DINOv2's names: scales, registers and the token of masked patches beside those of DINO."""
    extra = {'register_tokens': torch.randn(1, REGISTERS, 24), 'mask_token': torch.zeros(1, 24)}
    scales = {f'blocks.{block}.ls{part}.gamma': torch.randn(24) for block in range(2) for part in (1, 2)}
    return timm_vit | extra | scales


@pytest.fixture
def register_vit(tiny_vit) -> dict:
    return tiny_vit | dict(type='RegisterViT', num_registers=REGISTERS, layer_scale_init_value=1e-5)


def with_registers(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Patch tokens and keys of the last block, by DINOv2's definition in plain torch."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (24,), state[f'{name}.weight'], state[f'{name}.bias'], 1e-6)

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ state[f'{name}.weight'].t() + state[f'{name}.bias']

    patches = F.conv2d(images, state['patch_embed.proj.weight'], state['patch_embed.proj.bias'], stride=8)
    grid = tuple(patches.shape[2:])
    maps = state['pos_embed'][:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    maps = F.interpolate(maps, grid, mode='bicubic', antialias=True) if grid != (4, 4) else maps
    x = (patches + maps).flatten(2).transpose(1, 2)
    first = [(state['cls_token'] + state['pos_embed'][:, :1]), state['register_tokens']]
    x = torch.cat([*(token.expand(len(x), -1, -1) for token in first), x], 1)
    for name in ('blocks.0', 'blocks.1'):
        parts = dense(norm(x, f'{name}.norm1'), f'{name}.attn.qkv').chunk(3, 2)
        q, k, v = (part.unflatten(2, (3, 8)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + state[f'{name}.ls1.gamma'] * dense(mixed, f'{name}.attn.proj')
        hidden = F.gelu(dense(norm(x, f'{name}.norm2'), f'{name}.mlp.fc1'))
        x = x + state[f'{name}.ls2.gamma'] * dense(hidden, f'{name}.mlp.fc2')
    both = (norm(x, 'norm'), parts[1])
    return tuple(part[:, 1 + REGISTERS :].transpose(1, 2).unflatten(2, grid) for part in both)


@pytest.mark.parametrize('size', [(32, 32), (48, 40), (16, 24)], ids=str)
def test_registers(load, dinov2_with_registers, register_vit, size):
    backbone = load(dinov2_with_registers, register_vit, 'dinov2')
    images = torch.randn(2, 3, *size)
    features, keys = with_registers(dinov2_with_registers, images)
    taps = backbone.taps(images, attention='heads')
    torch.testing.assert_close(taps.features, features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(taps.keys, keys, rtol=1e-4, atol=1e-4)
    tokens = backbone.num_extra_tokens + features.shape[2] * features.shape[3]
    assert backbone.num_extra_tokens == 1 + REGISTERS and taps.attention.shape == (2, 3, tokens, tokens)


def test_registers_in_a_transformer_without_them(load, dinov2_with_registers, tiny_vit):
    with pytest.raises(ValueError, match='missing none; left over register_tokens'):
        load(dinov2_with_registers, tiny_vit | dict(layer_scale_init_value=1e-5), 'dinov2')


def test_no_registers_in_their_class(load, dinov2_with_registers, register_vit):
    del dinov2_with_registers['register_tokens']
    with pytest.raises(ValueError, match='missing register_tokens; left over none'):
        load(dinov2_with_registers, register_vit, 'dinov2')
    with pytest.raises(ValueError, match=r'num_registers must be a whole number in \[1, 1024\]; got 0'):
        FrozenBackbone(register_vit | dict(num_registers=0))


def test_registers_start_small(register_vit):
    backbone = FrozenBackbone(register_vit)
    backbone.init_weights()
    assert 0 < backbone.backbone.register_tokens.abs().max() < 1e-4
    assert backbone.backbone.pos_embed.std() > 0.01


# ---- Swin


def official_swin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names, with random values, for the shapes of a Swin of mm; merged patches are not reordered."""
    named = {}
    for key, value in values(state).items():
        key = key.replace('.attn.w_msa.', '.attn.').replace('.ffn.layers.0.0.', '.mlp.fc1.')
        key = key.replace('.ffn.layers.1.', '.mlp.fc2.').replace('patch_embed.projection.', 'patch_embed.proj.')
        named[re.sub(r'^norm3\.', 'norm.', re.sub(r'^stages\.', 'layers.', key))] = value
    masks = {'layers.0.blocks.1.attn_mask': torch.zeros(4, 9, 9)}
    return named | masks | {'head.weight': torch.zeros(2, 64), 'head.bias': torch.zeros(2)}


class OfficialMerging(nn.Module):
    """Merging of 2 x 2 patches as in the authors' definition: concatenate column by column, norm, project."""

    def __init__(self, state: dict[str, Tensor], stage: int) -> None:
        super().__init__()
        self.parts = [state[f'layers.{stage}.downsample.{name}'] for name in ('norm.weight', 'norm.bias')]
        self.reduction = state[f'layers.{stage}.downsample.reduction.weight']

    def forward(self, maps: Tensor) -> Tensor:
        rows_columns = ((0, 0), (1, 0), (0, 1), (1, 1))
        x = torch.cat([maps[:, row::2, column::2] for row, column in rows_columns], -1)
        return F.layer_norm(x, x.shape[-1:], *self.parts) @ self.reduction.t()


@pytest.mark.parametrize('library', SWIN)
def test_swin(load, library):
    own = FrozenBackbone(SWIN[library]).backbone.state_dict()
    official = official_swin(own)
    assert {'layers.0.blocks.1.attn.relative_position_bias_table', 'layers.2.downsample.reduction.weight',
            'patch_embed.norm.weight', 'layers.3.blocks.0.mlp.fc2.bias', 'norm.bias'} <= set(official)  # fmt: skip
    backbone = load(dict(model=official), SWIN[library], 'swin').backbone
    loaded = backbone.state_dict()
    assert set(loaded) == set(own)
    assert torch.equal(loaded['norm3.weight'], official['norm.weight'])
    assert torch.equal(loaded['stages.1.blocks.0.attn.w_msa.qkv.weight'], official['layers.1.blocks.0.attn.qkv.weight'])
    assert torch.equal(
        loaded['stages.0.blocks.1.ffn.layers.0.0.weight'], official['layers.0.blocks.1.mlp.fc1.weight']
    )
    for stage in range(3):
        channels = SWIN_DIMS * 2**stage
        maps = torch.randn(2, 4, 6, channels)
        merged, size = backbone.stages[stage].downsample(maps.flatten(1, 2), (4, 6))
        assert tuple(size) == (2, 3)
        expected = OfficialMerging(official, stage)(maps).flatten(1, 2)
        torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('library', SWIN)
def test_indices_of_swin_positions_are_those_of_the_authors(library):
    """So that the index stored in their files means the same table entries."""
    coords = torch.stack(torch.meshgrid(torch.arange(SWIN_WINDOW), torch.arange(SWIN_WINDOW), indexing='ij')).flatten(1)
    relative = (coords[:, :, None] - coords[:, None]).permute(1, 2, 0) + SWIN_WINDOW - 1
    official = relative[..., 0] * (2 * SWIN_WINDOW - 1) + relative[..., 1]
    own = FrozenBackbone(SWIN[library]).backbone.state_dict()
    assert torch.equal(own['stages.0.blocks.0.attn.w_msa.relative_position_index'], official)


def test_earlier_norms_of_swin_are_missing_unless_allowed(load):
    wrapped = SWIN['mmpretrain'] | dict(out_indices=(2, 3))
    official = official_swin(FrozenBackbone(SWIN['mmpretrain']).backbone.state_dict())
    with pytest.raises(ValueError, match=r'missing norm2\.weight, norm2\.bias; left over none'):
        load(official, wrapped, 'swin')
    backbone = load(official, wrapped, 'swin', allow_missing=['norm2.*'])
    assert torch.equal(backbone.backbone.norm2.weight, torch.ones(4 * SWIN_DIMS))


def test_final_norm_of_a_swin_with_fewer_stages():
    assert list(swin_to_mm({'layers.1.blocks.0.norm1.bias': torch.zeros(1), 'norm.bias': torch.zeros(1)})) == [
        'stages.1.blocks.0.norm1.bias', 'norm1.bias',
    ]  # fmt: skip
