"""Lightning checkpoints with the parts of SmooSeg, made here under several names, as checkpoints of ours."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import load_checkpoint
from torch import Tensor

from omh_mmseg.models.converters.dino import convert_file
from omh_mmseg.models.converters.smooseg import convert_smooseg_checkpoint
from omh_mmseg.registry import MODELS

TOOL = Path(__file__).resolve().parents[3] / 'tools' / 'model_converters' / 'smooseg2omh.py'
NAMES = dict(
    plain=dict(backbone='net.model.', linear='net.cluster1.0', hidden='net.cluster2.0', out='net.cluster2.2',
               student='prototypes.student', teacher='prototypes.teacher'),
    other=dict(backbone='model.vit.', linear='a.l', hidden='b.x.0', out='b.x.2', student='Local', teacher='p.EMA_copy'),
)  # fmt: skip


@pytest.fixture
def tiny_vit(tiny_vit) -> dict:
    """The tiny ViT with DINO's MLP ratio."""
    tiny_vit['arch']['feedforward_channels'] = 96
    return tiny_vit


@pytest.fixture
def parts(dino_state) -> dict[str, Tensor]:
    """A tiny backbone, a code of 10 channels and 4 classes, by the roles of `NAMES`."""
    sizes = dict(linear=(10, 24), hidden=(24, 24), out=(10, 24))
    parts = {f'backbone{key}': value for key, value in dino_state(24, 2, 8, 4).items()}
    for name, (rows, columns) in sizes.items():
        parts |= {f'{name}.weight': torch.randn(rows, columns, 1, 1), f'{name}.bias': torch.randn(rows)}
    return parts | dict(student=torch.randn(4, 10), teacher=torch.randn(4, 10))


def lightning(parts: dict[str, Tensor], names: dict[str, str]) -> dict:
    """The parts under some names, as Lightning writes them."""
    state = OrderedDict()
    for key, value in parts.items():
        role = next(role for role in names if key.startswith(role))
        state[names[role] + key.removeprefix(role)] = value
    return dict(state_dict=state, global_step=1200, hyper_parameters=dict(dim=10, dir='x'))


def our_model(tiny_vit: dict) -> torch.nn.Module:
    return MODELS.build(
        dict(
            type='SmooSeg', num_classes=4, backbone=dict(type='FrozenBackbone', backbone=tiny_vit),
            decode_head=dict(type='ProjectionHead', channels=10, act_cfg=dict(type='SiLU')),
            cluster_probe=dict(type='PrototypeHead'),
            smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=0.0, across_shift=0.5),
        )
    ).eval()  # fmt: skip


@pytest.mark.parametrize('names', NAMES.values(), ids=NAMES)
def test_our_model_computes_the_reference_forward_pass(parts, names, tiny_vit, tmp_path):
    torch.save(lightning(parts, names), tmp_path / 'theirs.ckpt')
    converted = convert_file(convert_smooseg_checkpoint, tmp_path / 'theirs.ckpt', tmp_path / 'ours.pth')
    assert (converted.channels, converted.num_classes, converted.left_out) == (10, 4, [])
    assert converted.taken['cluster_probe.centres'] == names['teacher']
    model = our_model(tiny_vit)
    load_checkpoint(model, str(tmp_path / 'ours.pth'), strict=True)
    assert int(model.iteration) == 1200
    images = torch.randn(1, 3, 32, 32)
    features = model.backbone(images)

    def dense(name: str, maps: Tensor) -> Tensor:
        return F.conv2d(maps, parts[f'{name}.weight'], parts[f'{name}.bias'])

    code = dense('linear', features) + dense('out', F.silu(dense('hidden', features)))
    torch.testing.assert_close(model.encode(images), code)
    cosines = F.cosine_similarity(code[:, None], parts['teacher'][None, :, :, None, None], dim=2)
    torch.testing.assert_close(model(images, mode='tensor'), cosines)
    assert torch.equal(model.cluster_probe.student, parts['student'])
    content = torch.load(tmp_path / 'ours.pth', weights_only=True)
    assert content['meta'].pop('trained_with').keys() == {'normalisation', 'weights', 'num_classes'}
    assert content['meta'] == dict(source='theirs.ckpt', iter=1200, settings=dict(dim=10, dir='x'))


def test_named_prototypes(parts):
    names = dict(NAMES['plain'], student='p.first', teacher='p.second')
    content = lightning(parts, names)
    with pytest.raises(ValueError, match=r"0 matrices K x D .* are \['p.first', 'p.second'\]. Say which .* --student"):
        convert_smooseg_checkpoint(content, 'a.ckpt')
    converted = convert_smooseg_checkpoint(content, 'a.ckpt', 'p.first', 'p.second')
    assert torch.equal(converted.state_dict['cluster_probe.centres'], parts['teacher'])
    with pytest.raises(ValueError, match="holds 0 matrices K x D under 'p.third'"):
        convert_smooseg_checkpoint(content, 'a.ckpt', 'p.first', 'p.third')
    with pytest.raises(ValueError, match='must be two entries of one shape'):
        convert_smooseg_checkpoint(content, 'a.ckpt', 'p.first', 'p.first')


def test_dinov2_backbone(parts):
    names = NAMES['plain']
    scales = {f'backboneblocks.{block}.ls{scale}.gamma': torch.rand(24) for block in (0, 1) for scale in (1, 2)}
    content = lightning(parts | scales | {'backbonemask_token': torch.zeros(1, 24)}, names)
    converted = convert_smooseg_checkpoint(content, 'a.ckpt')
    key = 'backbone.backbone.layers.1.ffn.gamma2.weight'
    assert torch.equal(converted.state_dict[key], scales['backboneblocks.1.ls2.gamma'])
    assert not any('mask_token' in key for key in converted.state_dict)


def test_entries_without_a_place_are_told(parts):
    content = lightning(parts, NAMES['plain'])
    content['state_dict']['decoder.weight'] = torch.zeros(24, 10, 1, 1)
    assert convert_smooseg_checkpoint(content, 'a.ckpt').left_out == ['decoder.weight']


@pytest.mark.parametrize(
    ('dropped', 'message'),
    [
        ('backbone', 'should hold one backbone with'),
        ('backboneblocks.1.attn', 'missing layers.1.attn'),
        ('hidden', r'three 1x1 convolutions with bias beside a backbone of C = 24 channels'),
        ('linear.bias', 'three 1x1 convolutions with bias'),
        ('teacher', "0 matrices K x D under a name with one of .*'teacher'.*--teacher"),
    ],
)
def test_missing_parts(parts, dropped, message):
    some = {key: value for key, value in parts.items() if not key.startswith(dropped)}
    with pytest.raises(ValueError, match=message):
        convert_smooseg_checkpoint(lightning(some, NAMES['plain']), 'a.ckpt')


@pytest.mark.parametrize('content', [[], {}, dict(state_dict=3)], ids=str)
def test_other_files(content):
    with pytest.raises(ValueError, match="a.ckpt is not a Lightning checkpoint with a 'state_dict'"):
        convert_smooseg_checkpoint(content, 'a.ckpt')


@pytest.mark.slow
def test_command(parts, tmp_path):
    """A file with a pickled object is refused without --trust, and read inertly with it."""
    module = ModuleType('their_package')
    module.Settings = type('Settings', (), dict(__module__='their_package'))
    sys.modules['their_package'] = module
    try:
        content = lightning(parts, NAMES['plain']) | dict(hyper_parameters=module.Settings())
        torch.save(content, tmp_path / 'theirs.ckpt')
    finally:
        del sys.modules['their_package']
    assert importlib.util.find_spec('their_package') is None
    words = [sys.executable, str(TOOL), 'theirs.ckpt', 'ours.pth']
    refused = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 1 and '--trust' in refused.stderr and not (tmp_path / 'ours.pth').exists()
    done = subprocess.run([*words, '--trust'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'prototypes.teacher' in done.stdout and 'model.decode_head.channels=10' in done.stdout
    assert torch.load(tmp_path / 'ours.pth', weights_only=True)['meta']['iter'] == 1200
