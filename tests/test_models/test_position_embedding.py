"""DINO's rule for positional embeddings, against its formula written out, and inside transformers of mmpretrain."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn.bricks.transformer import PatchEmbed

from omh_mmseg.models.backbones import FrozenBackbone
from omh_mmseg.models.backbones.position_embedding import dino_position_embedding
from omh_mmseg.models.backbones.token_grid import token_grid


def cubic(distance: np.ndarray) -> np.ndarray:
    """The bicubic kernel of a = -0.75."""
    a, x = -0.75, np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resize_matrix(native: int, wanted: int) -> np.ndarray:
    """Weights (wanted, native) of one axis by docs/methods/features.md 1.5: positions scaled by (n + 0.1) / n_native.
    """
    matrix = np.zeros((wanted, native))
    for row in range(wanted):
        source = (row + 0.5) * native / (wanted + 0.1) - 0.5
        for tap in range(int(np.floor(source)) - 1, int(np.floor(source)) + 3):
            matrix[row, min(max(tap, 0), native - 1)] += cubic(np.array(source - tap))
    return matrix


def by_hand(embedding: torch.Tensor, native: tuple[int, int], grid: tuple[int, int]) -> torch.Tensor:
    extra = embedding.shape[1] - native[0] * native[1]
    patches = embedding[0, extra:].double().reshape(*native, -1)
    rows, columns = (torch.tensor(resize_matrix(had, wanted)) for had, wanted in zip(native, grid))
    resized = torch.einsum('ih,jw,hwc->ijc', rows, columns, patches).reshape(1, -1, embedding.shape[2])
    return torch.cat([embedding[:, :extra].double(), resized], 1)


@given(
    native=st.tuples(st.integers(2, 9), st.integers(2, 9)), grid=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    extra=st.integers(0, 2),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_formula(native, grid, extra):
    embedding = torch.randn(1, extra + native[0] * native[1], 3, generator=torch.Generator().manual_seed(0))
    found = dino_position_embedding(embedding, native, grid)
    assert found.shape == (1, extra + grid[0] * grid[1], 3)
    assert torch.equal(found[:, :extra], embedding[:, :extra])
    expected = embedding.double() if grid == native else by_hand(embedding, native, grid)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_forty_tokens_from_twenty_eight_differ_from_a_resize_by_size():
    embedding = torch.randn(1, 785, 4)
    found = dino_position_embedding(embedding, (28, 28), (40, 40))
    torch.testing.assert_close(found.double(), by_hand(embedding, (28, 28), (40, 40)), rtol=1e-4, atol=1e-5)
    patches = embedding[:, 1:].reshape(1, 28, 28, 4).permute(0, 3, 1, 2)
    by_size = torch.nn.functional.interpolate(patches, (40, 40), mode='bicubic').flatten(2).transpose(1, 2)
    relative = (found[:, 1:] - by_size).norm() / by_size.norm()
    assert 0.06 < relative < 0.12  # docs/methods/features.md 1.5: 9 % on white noise


def test_half_precision_is_resized_in_float32():
    embedding = torch.randn(1, 17, 3).half()
    found = dino_position_embedding(embedding, (4, 4), (6, 5))
    assert found.dtype == torch.half
    assert torch.equal(found, dino_position_embedding(embedding.float(), (4, 4), (6, 5)).half())


def test_embedding_without_a_patch_part():
    with pytest.raises(ValueError, match='An embedding of 5 tokens has no patch part of 4x4'):
        dino_position_embedding(torch.zeros(1, 5, 3), (4, 4), (2, 2))


@pytest.mark.parametrize('padding', ['corner', 'same', 0, 3])
@pytest.mark.parametrize('size', [(32, 32), (24, 56), (33, 47), (16, 17)])
def test_grid_is_that_of_the_patch_embedding(padding, size):
    embed = PatchEmbed(3, 6, kernel_size=8, stride=5 if padding == 3 else 8, padding=padding)
    assert token_grid(embed, size) == embed(torch.zeros(1, 3, *size))[1]


# ---- inside a backbone

KIN = {
    'VisionTransformer': 1,
    'DistilledVisionTransformer': 2,
    'DeiT3': 0,
}


def build(tiny_vit: dict, **options) -> FrozenBackbone:
    torch.manual_seed(3)
    backbone = FrozenBackbone(tiny_vit, position_interpolation='dino', **options)
    for parameter in backbone.backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return backbone


def expected_features(backbone: FrozenBackbone, images: torch.Tensor) -> torch.Tensor:
    """Those of the same backbone whose native size is that of the images, with the embedding put in by hand."""
    wrapped = backbone.backbone
    grid = token_grid(wrapped.patch_embed, images.shape[-2:])
    twin = copy.deepcopy(wrapped)
    twin.pos_embed = torch.nn.Parameter(by_hand(wrapped.pos_embed, (4, 4), grid).float())
    twin.patch_resolution = grid
    return twin(images)[-1]


@pytest.mark.parametrize('kind', KIN)
@pytest.mark.parametrize('size', [(48, 48), (32, 64), (16, 64), (64, 16), (24, 40), (40, 24)])
def test_features_at_other_sizes(tiny_vit, kind, size):
    backbone = build(tiny_vit | dict(type=f'mmpretrain.{kind}'))
    assert backbone.backbone.pos_embed.shape[1] == 16 + KIN[kind]
    images = torch.randn(2, 3, *size)
    stored = backbone.backbone.pos_embed
    by_size = backbone.backbone(images)[-1]
    found = backbone(images)
    torch.testing.assert_close(found, expected_features(backbone, images), rtol=1e-4, atol=1e-4)
    assert (found - by_size).abs().max() > 1e-3
    assert backbone.backbone.pos_embed is stored and backbone.backbone.patch_resolution == (4, 4)
    assert not found.requires_grad


def test_native_size_is_untouched(tiny_vit, monkeypatch):
    backbone = build(tiny_vit)
    monkeypatch.setattr(torch.nn.functional, 'interpolate', lambda *_, **__: pytest.fail('resized'))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(backbone(images), backbone.backbone(images)[-1])


@pytest.mark.parametrize('option', [None, 'size'])
def test_own_rule(tiny_vit, option):
    backbone = FrozenBackbone(tiny_vit, position_interpolation=option)
    images = torch.randn(1, 3, 48, 64)
    assert torch.equal(backbone(images), backbone.backbone(images)[-1])


def test_weights_loaded_later_count(tiny_vit):
    backbone, images = build(tiny_vit), torch.randn(1, 3, 48, 48)
    before = backbone(images)
    state = {key: value * 0.7 for key, value in backbone.state_dict().items()}
    backbone.load_state_dict(state)
    after = backbone(images)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, expected_features(backbone, images), rtol=1e-4, atol=1e-4)
    assert list(state) == list(backbone.state_dict())


def test_cast_weights(tiny_vit):
    backbone, images = build(tiny_vit), torch.randn(1, 3, 48, 48)
    full = backbone(images)
    half = backbone.to(torch.bfloat16)(images.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.3)
    assert backbone.double()(images.double()).dtype == torch.double


def test_failing_forward_pass_restores_the_embedding(tiny_vit):
    backbone = build(tiny_vit)
    stored = backbone.backbone.pos_embed
    with pytest.raises(RuntimeError):
        backbone(torch.randn(1, 5, 48, 48))
    assert backbone.backbone.pos_embed is stored and backbone.backbone.patch_resolution == (4, 4)


@pytest.mark.parametrize(
    'other',
    [
        dict(type='mmpretrain.ResNet', depth=18, base_channels=8, stem_channels=8),
        dict(type='VisionTransformer', img_size=32, patch_size=8, embed_dims=24, num_layers=1, num_heads=3),
    ],
    ids=lambda other: other['type'],
)
def test_backbones_without_the_embedding(other):
    with pytest.raises(ValueError, match="position_interpolation='dino' resizes .* has none. .*'size'"):
        FrozenBackbone(other, position_interpolation='dino')


def test_unknown_rule(tiny_vit):
    with pytest.raises(ValueError, match=r"position_interpolation must be one of \(None, 'size', 'dino'\); got 'timm'"):
        FrozenBackbone(tiny_vit, position_interpolation='timm')


def test_checkpoint_of_another_native_size(tiny_vit, tmp_path):
    torch.save(FrozenBackbone(tiny_vit | dict(img_size=64)).backbone.state_dict(), tmp_path / 'w.pth')
    backbone = FrozenBackbone(tiny_vit, str(tmp_path / 'w.pth'), position_interpolation='dino')
    with pytest.raises(ValueError, match='w.pth has a positional embedding of 65 tokens and the backbone one of 17.*'):
        backbone.init_weights()
    FrozenBackbone(tiny_vit, str(tmp_path / 'w.pth')).init_weights()
