from __future__ import annotations

import copy
import importlib.util

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger

from omh_mmseg.models.backbones import FrozenBackbone
from omh_mmseg.registry import MODELS

BACKBONES = dict(
    vit=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48),
        img_size=32, patch_size=8, out_type='featmap', drop_rate=0.2, drop_path_rate=0.2,
    ),
    resnet=dict(type='mmpretrain.ResNet', depth=18, base_channels=8, stem_channels=8, frozen_stages=1),
    resnet_v1c=dict(type='ResNetV1c', depth=18, base_channels=8, stem_channels=8, norm_cfg=dict(type='BN')),
    mobilenet=dict(type='mmpretrain.MobileNetV2', widen_factor=0.25),
    swin=dict(
        type='mmpretrain.SwinTransformer', arch=dict(embed_dims=12, depths=[2, 1], num_heads=[2, 2]),
        img_size=64, window_size=4, out_indices=(0, 1), stage_cfgs=dict(), pad_small_map=True,
    ),
    swin_mmseg=dict(
        type='SwinTransformer', pretrain_img_size=64, embed_dims=12, depths=(2, 1), num_heads=(2, 2),
        strides=(4, 2), out_indices=(0, 1), window_size=4,
    ),
)  # fmt: skip
# Channels and stride of the last map.
OFFERS = dict(vit=(24, 8), resnet=(64, 32), resnet_v1c=(64, 32), mobilenet=(1280, 32), swin=(24, 8), swin_mmseg=(24, 8))


def build(name: str, **options) -> FrozenBackbone:
    backbone = MODELS.build(dict(type='FrozenBackbone', backbone=copy.deepcopy(BACKBONES[name]), **options))
    backbone.init_weights()
    return backbone


class Host(torch.nn.Module):
    """A parent that trains everything it is allowed to."""

    def __init__(self, backbone: FrozenBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = torch.nn.Conv2d(backbone.out_channels, 2, 1)


@pytest.mark.parametrize('name', BACKBONES)
def test_training_leaves_the_backbone_as_it_is(name):
    host = Host(build(name))
    before = copy.deepcopy(host.backbone.state_dict())
    images = torch.randn(2, 3, 64, 64)
    host.eval()
    expected = host.backbone(images)
    optimiser = torch.optim.SGD(host.parameters(), 0.1, weight_decay=0.1)
    for mode in (True, False, True):
        host.train(mode)
        assert host.backbone.training == mode
        assert not any(module.training for module in host.backbone.backbone.modules())
        assert not any(parameter.requires_grad for parameter in host.backbone.parameters())
        images.requires_grad_()
        features = host.backbone(images)
        assert not features.requires_grad
        optimiser.zero_grad()
        host.head(features).square().mean().backward()
        optimiser.step()
    host.requires_grad_(True).train()
    assert torch.equal(host.backbone(images), expected)
    assert list(before) == list(host.backbone.state_dict())
    for key, value in host.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert images.grad is None and host.head.weight.grad.norm() > 0


@pytest.mark.parametrize('name', BACKBONES)
def test_channels_and_stride(name):
    backbone = build(name)
    assert (backbone.out_channels, backbone.stride) == OFFERS[name]
    for height, width in ((64, 64), (64, 96)):
        shape = backbone(torch.randn(1, 3, height, width)).shape
        assert shape == (1, backbone.out_channels, height // backbone.stride, width // backbone.stride)


def test_given_channels_and_stride_save_the_dry_run(monkeypatch):
    monkeypatch.setattr(FrozenBackbone, '_dry_run', lambda self: pytest.fail('ran'))
    backbone = FrozenBackbone(copy.deepcopy(BACKBONES['vit']), out_channels=24, stride=8)
    assert (backbone.out_channels, backbone.stride) == (24, 8)


def test_several_maps_are_fused_at_the_finest():
    backbone = build('swin_mmseg', out_indices=(1, 0))
    images = torch.randn(2, 3, 64, 64)
    fine, coarse = backbone.backbone(images)
    assert (backbone.out_channels, backbone.stride) == (36, 4)
    expected = torch.cat([F.interpolate(coarse, (16, 16), mode='bilinear', align_corners=False), fine], 1)
    torch.testing.assert_close(backbone(images), expected)


def test_one_of_several_maps():
    backbone = build('swin_mmseg', out_indices=0)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(backbone(images), backbone.backbone(images)[0])


@pytest.mark.skipif(importlib.util.find_spec('timm') is None, reason='timm is not installed')
def test_timm():
    timm_cfg = dict(type='mmpretrain.TIMMBackbone', model_name='resnet10t', features_only=True, out_indices=(1, 2))
    backbone = MODELS.build(dict(type='FrozenBackbone', backbone=timm_cfg, out_indices=(0, 1)))
    before = copy.deepcopy(backbone.state_dict())
    backbone.train()
    shape = backbone(torch.randn(2, 3, 64, 64)).shape
    assert shape == (2, backbone.out_channels, 64 // backbone.stride, 64 // backbone.stride)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())


def test_random_weights_are_said_to_be_random(monkeypatch, tmp_path):
    messages = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', messages.append)
    backbone = build('vit')
    assert len(messages) == 1 and 'random weights: neither model.backbone.checkpoint nor an init_cfg' in messages[0]
    torch.save(backbone.backbone.state_dict(), tmp_path / 'weights.pth')
    build('vit', checkpoint=str(tmp_path / 'weights.pth'))
    assert len(messages) == 1


# ---- wrong configs


def test_unknown_type():
    with pytest.raises(ValueError, match="type 'NoSuchNet' is not registered.*mmpretrain.VisionTransformer.*timm"):
        FrozenBackbone(dict(type='NoSuchNet'))


def test_wrong_arguments_of_the_backbone_keep_their_own_error():
    with pytest.raises(TypeError, match='no_such_option'):
        FrozenBackbone(dict(type='mmpretrain.ResNet', depth=18, no_such_option=1))
    with pytest.raises(KeyError, match='invalid depth 19'):
        FrozenBackbone(dict(type='mmpretrain.ResNet', depth=19))


def test_class_token_output(tiny_vit):
    with pytest.raises(ValueError, match=r'Output -1 of VisionTransformer is \(1, 24\), not a feature map.*featmap'):
        FrozenBackbone(tiny_vit | dict(out_type='cls_token'))


@pytest.mark.parametrize('out_indices', [1, (0, 3)])
def test_absent_map(tiny_vit, out_indices):
    with pytest.raises(ValueError, match='VisionTransformer returns 1 outputs, out_indices asks for .*Choose among'):
        FrozenBackbone(tiny_vit, out_indices=out_indices)


def test_no_map(tiny_vit):
    with pytest.raises(ValueError, match='out_indices is empty'):
        FrozenBackbone(tiny_vit, out_indices=())
