from __future__ import annotations

import copy
import importlib.util
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger

from omh_mmseg.datasets.fingerprint import model_fingerprint
from omh_mmseg.models.backbones import FrozenBackbone, wrapped
from omh_mmseg.models.prediction.code_maps import slide_averaged
from omh_mmseg.registry import MODELS
from omh_mmseg.shipped import install_extra
from omh_mmseg.utils.digests import weights_digest

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
    assert len(messages) == 1 and 'neither model.backbone.checkpoint nor a pretrained init_cfg is set' in messages[0]
    torch.save(backbone.backbone.state_dict(), tmp_path / 'weights.pth')
    build('vit', checkpoint=str(tmp_path / 'weights.pth'))
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    MODELS.build(dict(type='FrozenBackbone', backbone=dict(BACKBONES['vit'], init_cfg=pretrained))).init_weights()
    assert len(messages) == 1


@pytest.mark.parametrize('name', sorted(BACKBONES))
def test_random_weights_are_the_same_in_every_process(name, monkeypatch):
    """Also where an ``init_cfg`` draws them, as that of ResNet does."""
    messages = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', messages.append)
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        backbone = MODELS.build(dict(type='FrozenBackbone', backbone=copy.deepcopy(BACKBONES[name])))
        state = torch.get_rng_state()
        backbone.init_weights()
        assert torch.equal(torch.get_rng_state(), state)
        digests.add(weights_digest(backbone.state_dict()))
    assert len(digests) == 1 and len(messages) == 2


@pytest.mark.skipif(importlib.util.find_spec('timm') is None, reason='timm is not installed')
@pytest.mark.parametrize('options', [dict(), dict(reg_tokens=4, patch_size=14, img_size=28)], ids=['CLS', 'registers'])
def test_transformers_of_timm(options):
    cfg = dict(
        type='mmpretrain.TIMMBackbone', model_name='vit_small_patch8_224.dino', dynamic_img_size=True, embed_dim=24,
        depth=2, num_heads=3, **options,
    )  # fmt: skip
    backbone = FrozenBackbone(cfg)
    patch, extra = options.get('patch_size', 8), 1 + options.get('reg_tokens', 0)
    assert (backbone.out_channels, backbone.stride, backbone.size_multiple) == (24, patch, patch)
    assert backbone.has_keys and backbone.num_extra_tokens == extra
    images, timm_model = torch.randn(2, 3, 2 * patch, 3 * patch), backbone.backbone.timm_model
    seen = []
    timm_model.blocks[-1].attn.qkv.register_forward_hook(lambda _m, _i, output: seen.append(output))
    taps = backbone.taps(images, attention='heads')
    normalised = timm_model.forward_features(images)[:, extra:].transpose(1, 2).unflatten(2, (2, 3))
    torch.testing.assert_close(taps.features, normalised)
    assert torch.equal(taps.keys[:, :, 1, 2], seen[0][:, extra + 5, 24:48])
    torch.testing.assert_close(taps.attention, plain_attention(seen[0], 3))


@pytest.mark.skipif(importlib.util.find_spec('timm') is None, reason='timm is not installed')
def test_timm_maps_with_channels_last():
    cfg = dict(
        type='TIMMBackbone', model_name='swin_tiny_patch4_window7_224', pretrained=False, out_indices=(2, 3),
        embed_dim=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2),
    )  # fmt: skip
    backbone = FrozenBackbone(cfg, out_indices=(0, 1))
    assert (backbone.out_channels, backbone.stride, backbone.size_multiple) == (48 + 96, 16, 32)
    assert not backbone.has_keys


@pytest.mark.skipif(importlib.util.find_spec('timm') is None, reason='timm is not installed')
def test_weights_of_timm_from_a_file(tmp_path):
    import timm

    sizes = dict(embed_dim=24, depth=1, num_heads=3)
    stored = timm.create_model('vit_small_patch8_224', num_classes=5, **sizes).state_dict()
    torch.save(stored, tmp_path / 'timm.pth')
    cfg = dict(type='mmpretrain.TIMMBackbone', model_name='vit_small_patch8_224', **sizes)
    backbone = FrozenBackbone(cfg, str(tmp_path / 'timm.pth'), 'timm')
    backbone.init_weights()
    loaded = backbone.backbone.timm_model.state_dict()
    assert len(loaded) == len(stored) - 2
    assert all(torch.equal(loaded[key], value) for key, value in stored.items() if not key.startswith('head.'))


@pytest.mark.parametrize('kind', ['mmpretrain.TIMMBackbone', 'TIMMBackbone'])
def test_timm_missing(monkeypatch, kind):
    monkeypatch.setattr(wrapped, 'find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=f'needs the library timm, .* {re.escape(install_extra("timm"))}'):
        FrozenBackbone(dict(type=kind, model_name='resnet18'))


# ---- sizes of images


@pytest.mark.parametrize(
    ('name', 'size', 'multiple'),
    [('vit', (32, 44), 8), ('swin_mmseg', (32, 36), 8), ('resnet', (48, 64), 32), ('mobilenet', (64, 90), 32)],
)
def test_size_that_does_not_fit(name, size, multiple):
    backbone, images = build(name), torch.randn(1, 3, *size)
    assert backbone.size_multiple == multiple
    reason = f'{size[0]}x{size[1]} pixels do not fit .* multiples of {multiple}. Crop .*divisor={multiple} .*resize'
    with pytest.raises(ValueError, match=reason):
        backbone(images)
    with pytest.raises(ValueError, match=reason):
        backbone.taps(images, keys=False)


def test_sizes_are_multiples_of_the_coarsest_map():
    backbone = build('swin_mmseg', out_indices=(0, 1))
    assert (backbone.stride, backbone.size_multiple) == (4, 8)
    with pytest.raises(ValueError, match='multiples of 8'):
        backbone(torch.randn(1, 3, 32, 36))


@pytest.mark.parametrize(('size', 'fitted'), [((45, 71), (42, 70)), ((3, 21), (14, 28)), ((28, 56), (28, 56))], ids=str)
def test_images_resized_to_patches(tiny_vit, size, fitted):
    backbone = FrozenBackbone(tiny_vit | dict(patch_size=14, img_size=28), input_fit='resize')
    images = torch.randn(2, 3, *size)
    resized = images if size == fitted else F.interpolate(images, fitted, mode='bilinear', align_corners=False)
    taps = backbone.taps(images, attention='mean')
    expected = backbone.taps(resized, attention='mean')
    assert all(torch.equal(one, other) for one, other in zip(taps, expected))
    assert taps.features.shape == (2, 24, fitted[0] // 14, fitted[1] // 14) == taps.keys.shape
    assert torch.equal(backbone(images), expected.features)


# ---- precision and memory


@pytest.mark.parametrize('outside', [None, torch.bfloat16], ids=['float32 heads', 'bfloat16 heads'])
@pytest.mark.parametrize('precision', ['float32', 'bfloat16', 'float16'])
def test_precision_of_the_backbone_alone(tiny_vit, precision, outside):
    backbone = FrozenBackbone(tiny_vit, precision=precision)
    before = copy.deepcopy(backbone.state_dict())
    images, dtype = torch.randn(2, 3, 32, 40), getattr(torch, precision)
    with torch.autocast('cpu', None if dtype == torch.float32 else dtype, enabled=dtype != torch.float32):
        expected = _copied(backbone, precision=None).taps(images, attention='mean')
    assert expected.keys.dtype == dtype
    with torch.autocast('cpu', outside, enabled=outside is not None):
        taps = backbone.taps(images, attention='mean')
        code = torch.nn.Conv2d(24, 2, 1)(taps.features)
    assert code.dtype == (outside or torch.float32)
    for found, wanted in zip(taps, expected):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted.float())
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_precision_of_the_caller(tiny_vit):
    backbone = FrozenBackbone(tiny_vit)
    assert backbone.precision is None and backbone(torch.randn(1, 3, 32, 32)).dtype == torch.float32
    with torch.autocast('cpu', torch.bfloat16):
        assert backbone.taps(torch.randn(1, 3, 32, 32)).keys.dtype == torch.bfloat16


def test_double_features_stay_double(tiny_vit):
    backbone = FrozenBackbone(tiny_vit, precision='float32').double()
    assert backbone(torch.randn(1, 3, 32, 32, dtype=torch.float64)).dtype == torch.float64


def _copied(backbone: FrozenBackbone, **attributes) -> FrozenBackbone:
    other = copy.deepcopy(backbone)
    for name, value in attributes.items():
        setattr(other, name, value)
    return other


CONVOLUTIONAL = ('resnet', 'resnet_v1c', 'mobilenet')


@pytest.mark.parametrize('name', BACKBONES)
def test_channels_last_in_convolutional_nets(name):
    automatic = build(name)
    assert automatic.channels_last == (name in CONVOLUTIONAL)
    last, first = build(name, channels_last=True), build(name, channels_last=False)
    for backbone in (automatic, last):
        backbone.load_state_dict(first.state_dict())
    kernels = [item.weight for item in last.modules() if isinstance(item, torch.nn.Conv2d)]
    assert all(item.is_contiguous(memory_format=torch.channels_last) for item in kernels)
    seen = []
    last.backbone.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(last(images), first(images), rtol=1e-4, atol=1e-5)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(automatic(images), (last if automatic.channels_last else first)(images))
    assert all(torch.equal(value, first.state_dict()[key]) for key, value in last.state_dict().items())


def test_fingerprint_knows_the_precision_and_not_the_layout(tiny_vit):
    built = FrozenBackbone(tiny_vit)

    def fingerprint(**options) -> dict:
        return model_fingerprint(built, dict(type='FrozenBackbone', backbone=tiny_vit, **options), {})

    prints = [fingerprint(precision=precision) for precision in ('float32', 'bfloat16', 'float16')]
    assert len({item['backbone'] for item in [fingerprint(), *prints]}) == 4
    assert fingerprint(channels_last=True) == fingerprint(channels_last=False) == fingerprint()
    last, first = build('resnet', channels_last=True), build('resnet', channels_last=False)
    last.load_state_dict(first.state_dict())
    assert model_fingerprint(last, {}, {}) == model_fingerprint(first, {}, {})


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


@pytest.mark.parametrize(
    ('name', 'stages'), [('resnet', (4,)), ('vit', (2, 3)), ('swin', (5,)), ('mobilenet', (9,))], ids=str
)
def test_absent_stage(name, stages):
    wrapped = copy.deepcopy(BACKBONES[name]) | dict(out_indices=stages)
    with pytest.raises(ValueError, match=r'refuses its options \{.*out_indices.*counted from 0|must in range'):
        FrozenBackbone(wrapped)


def test_absent_map_is_told_from_those_that_are_there():
    with pytest.raises(ValueError, match=r'It returns outputs 0: 12 channels, 56x56; 1: 24 channels, 28x28\.'):
        build('swin_mmseg', out_indices=2)


def test_keys_of_a_resnet_are_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"feature='keys' needs .* What ResNet offers: outputs 0: 64 channels, 7x7\."):
        build('resnet', feature='keys')


def test_no_map(tiny_vit):
    with pytest.raises(ValueError, match='out_indices is empty'):
        FrozenBackbone(tiny_vit, out_indices=())


# ---- keys and attention of the last block


def plain_attention(projected: torch.Tensor, heads: int) -> torch.Tensor:
    """Softmax of scaled products, head by head, of a projection (B, N, 3 C)."""
    width = projected.shape[-1] // 3
    each = width // heads
    maps = []
    for head in range(heads):
        query = projected[..., head * each : (head + 1) * each]
        key = projected[..., width + head * each : width + (head + 1) * each]
        maps.append(torch.softmax(torch.einsum('bnd,bmd->bnm', query, key) / each**0.5, -1))
    return torch.stack(maps, 1)


@pytest.fixture(params=['VisionTransformer', 'DistilledVisionTransformer', 'DeiT3', 'without CLS'])
def kin(request, tiny_vit) -> FrozenBackbone:
    """Frozen relatives of mmpretrain's transformer with visible weights."""
    if request.param == 'without CLS':
        cfg = tiny_vit | dict(with_cls_token=False)
    else:
        cfg = tiny_vit | dict(type=f'mmpretrain.{request.param}')
    backbone = FrozenBackbone(cfg, position_interpolation='dino')
    for parameter in backbone.backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return backbone


def test_taps(kin):
    images, extra = torch.randn(2, 3, 32, 48), kin.num_extra_tokens
    assert kin.has_keys and kin.has_attention
    assert extra == (0 if kin.backbone.cls_token is None else 1 + hasattr(kin.backbone, 'dist_token'))
    seen, passes = [], []
    qkv = kin.backbone.layers[-1].attn.qkv
    hooks = [
        qkv.register_forward_hook(lambda _m, _i, output: seen.append(output)),
        kin.backbone.patch_embed.register_forward_hook(lambda *_: passes.append(1)),
    ]
    taps = kin.taps(images, attention='heads')
    assert len(passes) == 1
    for hook in hooks:
        hook.remove()
    assert torch.equal(taps.features, kin(images))
    assert taps.keys.shape == (2, 24, 4, 6)
    assert torch.equal(taps.keys[:, :, 1, 2], seen[0][:, extra + 1 * 6 + 2, 24:48])
    assert taps.attention.shape == (2, 3, extra + 24, extra + 24)
    torch.testing.assert_close(taps.attention, plain_attention(seen[0], 3))
    torch.testing.assert_close(taps.attention.sum(-1), torch.ones(2, 3, extra + 24))
    mean = kin.taps(images, keys=False, attention='mean')
    assert mean.keys is None
    torch.testing.assert_close(mean.attention, taps.attention.mean(1))
    first = kin.taps(images, attention='heads', attended=1)
    assert torch.equal(first.attention, taps.attention[:1]) and torch.equal(first.features, taps.features)
    assert not any(part.requires_grad for part in taps)
    assert not qkv._forward_hooks


@pytest.mark.parametrize('attended', [None, 0, 3, 5])
def test_a_processor_takes_a_few_images_at_a_time(kin, monkeypatch, attended):
    images, passes = torch.randn(5, 3, 32, 48), []
    whole = kin.taps(images, attention='heads', attended=attended)
    monkeypatch.setattr(f'{FrozenBackbone.__module__}.PART_PIXELS', 2 * 32 * 48 + 1)
    kin.backbone.patch_embed.register_forward_hook(lambda _m, given, _o: passes.append(len(given[0])))
    parts = kin.taps(images, attention='heads', attended=attended)
    assert passes == [2, 2, 1]
    assert len(parts.attention) == (5 if attended is None else attended)
    for one, other in zip(parts, whole):
        torch.testing.assert_close(one, other)


def test_attention_is_what_the_block_uses(tiny_vit):
    backbone = FrozenBackbone(tiny_vit)
    block = backbone.backbone.layers[-1].attn
    inputs, outputs = [], []
    block.register_forward_pre_hook(lambda _m, given: inputs.append(given[0]))
    block.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    attention = backbone.taps(torch.randn(2, 3, 32, 32), attention='heads').attention
    values = block.qkv(inputs[0]).chunk(3, -1)[2].unflatten(-1, (3, 8)).transpose(1, 2)
    torch.testing.assert_close(block.proj((attention @ values).transpose(1, 2).flatten(2)), outputs[0])


def test_taps_of_half_precision_are_softmaxed_in_float32(tiny_vit):
    backbone = FrozenBackbone(tiny_vit).to(torch.bfloat16)
    taps = backbone.taps(torch.randn(1, 3, 32, 32).bfloat16(), attention='mean')
    assert (taps.keys.dtype, taps.attention.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(taps.attention.sum(-1), torch.ones(1, 17))


def test_taps_under_autocast(tiny_vit):
    backbone = FrozenBackbone(tiny_vit)
    images = torch.randn(1, 3, 32, 32)
    with torch.autocast('cpu', torch.bfloat16):
        taps = backbone.taps(images, attention='heads')
    assert taps.attention.dtype == torch.float32
    torch.testing.assert_close(taps.attention, backbone.taps(images, attention='heads').attention, rtol=0.05, atol=0.01)


def test_failing_pass_leaves_no_hook(tiny_vit, monkeypatch):
    backbone = FrozenBackbone(tiny_vit)
    monkeypatch.setattr(backbone.backbone, 'ln1', None)
    with pytest.raises(TypeError):
        backbone.taps(torch.randn(1, 3, 32, 32))
    assert not backbone.backbone.layers[-1].attn.qkv._forward_hooks


@pytest.mark.parametrize('out_type', ['featmap', 'raw', 'cls_token'])
def test_keys_as_features(tiny_vit, out_type):
    backbone = FrozenBackbone(tiny_vit | dict(out_type=out_type), feature='keys')
    assert (backbone.out_channels, backbone.stride) == (24, 8)
    images = torch.randn(2, 3, 32, 40)
    backbone.train()
    taps = backbone.taps(images, attention='mean')
    assert torch.equal(backbone(images), taps.keys) and torch.equal(taps.features, taps.keys)
    assert taps.features.shape == (2, 24, 4, 5)
    tokens = FrozenBackbone(tiny_vit)
    tokens.load_state_dict(backbone.state_dict())
    assert torch.equal(tokens.taps(images).keys, taps.keys)
    assert not torch.equal(tokens(images), taps.keys)


def test_keys_of_several_blocks(tiny_vit):
    """One after the other along the channels, in the order asked for; keys and attention stay the last block's."""
    one, both = (FrozenBackbone(tiny_vit, feature='keys', out_indices=chosen) for chosen in (0, (0, -1)))
    one.load_state_dict(both.state_dict())
    assert (one.out_channels, both.out_channels) == (24, 48)
    images = torch.randn(2, 3, 32, 40)
    features, keys, attention = both.taps(images, attention='mean')
    assert torch.equal(features, torch.cat([one(images), keys], 1)) and torch.equal(features, both(images))
    assert torch.equal(attention, one.taps(images, attention='mean').attention)
    framed_keys = FrozenBackbone(tiny_vit, feature='keys', out_indices=(0, -1), reflect_padding=1)
    assert framed_keys(images).shape == features.shape
    with pytest.raises(ValueError, match='keys of block -3, and VisionTransformer has 2 blocks'):
        FrozenBackbone(tiny_vit, feature='keys', out_indices=-3)


@pytest.mark.parametrize('name', [name for name in BACKBONES if name != 'vit'])
def test_backbones_without_attention(name):
    backbone = build(name)
    assert not backbone.has_keys and not backbone.has_attention and backbone.num_extra_tokens == 0
    images = torch.randn(1, 3, 64, 64)
    features, keys, attention = backbone.taps(images, keys=False)
    assert torch.equal(features, backbone(images)) and keys is None and attention is None
    with pytest.raises(ValueError, match='keys=True needs .* has none. Choose affinity from features'):
        backbone.taps(images)
    with pytest.raises(ValueError, match="attention='mean' needs .* has none. Choose affinity from features"):
        backbone.taps(images, keys=False, attention='mean')
    with pytest.raises(ValueError, match="feature='keys' needs .* has none. Use feature='tokens'"):
        build(name, feature='keys')


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='mmpretrain.BEiTViT', arch='deit-tiny', img_size=32, patch_size=16, out_type='featmap'),
        dict(type='mmpretrain.ViTEVA02', arch='t', img_size=28, patch_size=14, out_type='featmap'),
    ],
    ids=lambda cfg: cfg['type'],
)
def test_attention_with_biases_or_rotations_is_not_offered(cfg):
    backbone = FrozenBackbone(cfg, out_channels=192, stride=16)
    assert not backbone.has_attention


def test_unknown_choices(tiny_vit):
    with pytest.raises(ValueError, match=r"input_fit must be one of \('error', 'resize'\); got 'pad'"):
        FrozenBackbone(tiny_vit, input_fit='pad')
    with pytest.raises(ValueError, match=r"precision must be one of \(None, 'float32', .*\); got 'fp16'"):
        FrozenBackbone(tiny_vit, precision='fp16')
    with pytest.raises(ValueError, match=r"feature must be one of \('tokens', 'keys'\); got 'KK'"):
        FrozenBackbone(tiny_vit, feature='KK')
    with pytest.raises(ValueError, match=r"attention must be one of \(None, 'mean', 'heads'\); got 'max'"):
        FrozenBackbone(tiny_vit).taps(torch.randn(1, 3, 32, 32), attention='max')


# ---- a mirrored frame round the image


def framed(images: torch.Tensor, pixels: int) -> torch.Tensor:
    """Images with a frame, by numpy."""
    width = ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels))
    return torch.from_numpy(np.pad(images.numpy(), width, mode='reflect'))


@pytest.mark.parametrize('rows', [1, 2])
@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('vit', {}), ('vit', dict(position_interpolation='dino')), ('swin_mmseg', dict(out_indices=(0, 1))),
        ('mobilenet', {}), ('resnet', {}),
    ],
)  # fmt: skip
def test_mirrored_frame_is_cut_off_the_maps(name, options, rows):
    framing = build(name, reflect_padding=rows, **options)
    plain = build(name, **options)
    plain.load_state_dict(framing.state_dict())
    images = torch.randn(2, 3, 96, 128)
    positions = rows * plain.size_multiple // plain.stride
    expected = plain(framed(images, rows * plain.size_multiple))[..., positions:-positions, positions:-positions]
    found = framing(images)
    assert torch.equal(found, expected)
    assert found.shape == plain(images).shape and not torch.equal(found, plain(images))
    assert (framing.out_channels, framing.stride, framing.size_multiple) == (
        plain.out_channels, plain.stride, plain.size_multiple
    )  # fmt: skip


def test_keys_and_attention_inside_a_mirrored_frame(kin):
    images, extra = torch.randn(2, 3, 32, 48), kin.num_extra_tokens
    whole = kin.taps(framed(images, 8), attention='heads')
    kin.reflect_padding = 1
    taps = kin.taps(images, attention='heads')
    assert torch.equal(taps.features, whole.features[..., 1:-1, 1:-1])
    assert torch.equal(taps.keys, whole.keys[..., 1:-1, 1:-1])
    inside = [*range(extra), *(extra + 8 * row + column for row in range(1, 5) for column in range(1, 7))]
    masked = whole.attention[:, :, inside][..., inside]
    torch.testing.assert_close(taps.attention, masked / masked.sum(-1, keepdim=True))
    mean = kin.taps(images, attention='mean', attended=1).attention
    assert mean.shape == (1, extra + 24, extra + 24)
    torch.testing.assert_close(mean.sum(-1), torch.ones(1, extra + 24))


def test_windows_have_a_mirrored_frame_each(tiny_vit):
    framing, plain = FrozenBackbone(tiny_vit, reflect_padding=1), FrozenBackbone(tiny_vit)
    plain.load_state_dict(framing.state_dict())
    images = torch.randn(1, 3, 32, 48)
    code = slide_averaged(framing, images, (32, 32), (16, 16), 8)
    left, right = (plain(framed(images[..., part], 8))[..., 1:-1, 1:-1] for part in (slice(32), slice(16, 48)))
    torch.testing.assert_close(code[..., :2], left[..., :2])
    torch.testing.assert_close(code[..., 2:4], (left[..., 2:] + right[..., :2]) / 2)
    torch.testing.assert_close(code[..., 4:], right[..., 2:])


def test_frames_that_cannot_be(tiny_vit):
    with pytest.raises(ValueError, match='16 pixels on each side cannot be mirrored in images of 16x40'):
        FrozenBackbone(tiny_vit, reflect_padding=2)(torch.randn(1, 3, 16, 40))
    with pytest.raises(ValueError, match='reflect_padding must be a whole number'):
        FrozenBackbone(tiny_vit, reflect_padding=-1)
    # Of a stride that the maps do not have.
    backbone = FrozenBackbone(copy.deepcopy(BACKBONES['mobilenet']), out_channels=1280, stride=16, reflect_padding=1)
    with pytest.raises(ValueError, match='a frame of 16 pixels is no whole number of positions'):
        backbone(torch.randn(1, 3, 96, 96))


def test_fingerprint_knows_the_mirrored_frame(tiny_vit):
    built = FrozenBackbone(tiny_vit)
    prints = {
        model_fingerprint(built, dict(type='FrozenBackbone', backbone=tiny_vit, **options), {})['backbone']
        for options in ({}, dict(reflect_padding=1), dict(reflect_padding=2))
    }
    assert len(prints) == 3
