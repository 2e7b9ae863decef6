"""Checkpoints with the structure of HP's, made here, as checkpoints of ours."""

from __future__ import annotations

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
from omh_mmseg.models.converters.hp import convert_hp_checkpoint
from omh_mmseg.registry import MODELS

TOOL = Path(__file__).resolve().parents[3] / 'tools' / 'model_converters' / 'hp2omh.py'


@pytest.fixture
def tiny_vit(tiny_vit) -> dict:
    """The tiny ViT with DINO's MLP ratio."""
    tiny_vit['arch']['feedforward_channels'] = 96
    return tiny_vit


@pytest.fixture
def theirs(dino_state) -> dict:
    """A tiny backbone, a code of 10 channels and 4 classes, as the reference saves its best model."""
    net = OrderedDict((f'model.{key}', value) for key, value in dino_state(24, 2, 8, 4).items())
    for name in ('cluster', 'ema_model'):
        for layer, rows in (('1.0', 10), ('2.0', 24), ('2.2', 10)):
            net[f'{name}{layer}.weight'] = torch.randn(rows, 24, 1, 1)
            net[f'{name}{layer}.bias'] = torch.randn(rows)
    return dict(
        epoch=2, iter=700, best_epoch=2, best_iter=700, best=123.4, net_model_state_dict=net,
        net_optimizer_state_dict=None, linear_optimizer_state_dict=None, cluster_optimizer_state_dict=None,
        linear_model_state_dict=OrderedDict(weight=torch.randn(4, 10, 1, 1), bias=torch.randn(4)),
        cluster_model_state_dict=OrderedDict(clusters=torch.randn(4, 10)),
    )  # fmt: skip


def our_model(tiny_vit: dict) -> torch.nn.Module:
    return MODELS.build(
        dict(
            type='HiddenPositives', num_classes=4, backbone=dict(type='FrozenBackbone', backbone=tiny_vit),
            decode_head=dict(type='ProjectionHead', channels=10), cluster_probe=dict(type='ClusterProbe'),
            linear_probe=dict(type='LinearProbe'), pool_size=5,
            hidden_positive_loss=dict(
                type='HiddenPositiveLoss', temperature=0.5, random_negatives=1.0, consistency_weight=0.0
            ),
        )
    ).eval()  # fmt: skip


def test_our_model_computes_the_reference_forward_pass(theirs, tiny_vit, tmp_path):
    torch.save(theirs, tmp_path / 'theirs.pth')
    converted = convert_file(convert_hp_checkpoint, tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    assert (converted.channels, converted.num_classes) == (10, 4)
    model = our_model(tiny_vit)
    missing = model.load_state_dict(converted.state_dict, strict=False)
    assert missing.unexpected_keys == []
    assert {key.split('.')[0] for key in missing.missing_keys} <= {
        'project_head', 'agnostic_pool', 'specific_pool', 'assignment'
    }  # fmt: skip
    load_checkpoint(model, str(tmp_path / 'ours.pth'))
    images = torch.randn(1, 3, 32, 32)
    features, net = model.backbone(images), theirs['net_model_state_dict']

    def dense(name: str, maps: Tensor) -> Tensor:
        return F.conv2d(maps, net[f'{name}.weight'], net[f'{name}.bias'])

    def code_of(name: str) -> Tensor:
        return dense(f'{name}1.0', features) + dense(f'{name}2.2', F.relu(dense(f'{name}2.0', features)))

    code = code_of('cluster')
    torch.testing.assert_close(model.encode(images), code)
    torch.testing.assert_close(model.ema_head(features), code_of('ema_model'))
    clusters, linear = theirs['cluster_model_state_dict']['clusters'], theirs['linear_model_state_dict']
    cosines = F.cosine_similarity(code[:, None], clusters[None, :, :, None, None], dim=2)
    torch.testing.assert_close(model(images, mode='tensor'), cosines)
    torch.testing.assert_close(model.linear_probe(code), F.conv2d(code, linear['weight'], linear['bias']))
    assert int(model.iteration) == int(model.ema_head.steps) == 700
    content = torch.load(tmp_path / 'ours.pth', weights_only=True)
    assert content['meta'].pop('trained_with').keys() == {'normalisation', 'weights', 'num_classes'}
    assert content['meta'] == dict(source='theirs.pth', iter=700)


@pytest.mark.parametrize(
    ('group', 'name', 'value', 'message'),
    [
        ('net', 'cluster2.0.weight', None, r'cluster2.0.weight is missing, not \(24, 24, 1, 1\)'),
        ('net', 'ema_model1.0.bias', torch.zeros(9), r'ema_model1.0.bias is \(9,\), not \(10,\)'),
        ('linear', 'weight', torch.zeros(5, 10, 1, 1), r'weight is \(5, 10, 1, 1\), not \(4, 10, 1, 1\)'),
        ('net', 'decoder.weight', torch.zeros(2), 'without a counterpart in our HiddenPositives: decoder.weight'),
        ('net', 'model.blocks.1.attn.qkv.weight', None, 'missing layers.1.attn'),
        ('cluster', 'clusters', None, 'no matrix of clusters'),
    ],
)
def test_parts_that_are_missing_wrong_or_unknown(theirs, group, name, value, message):
    state = theirs[f'{group}_model_state_dict']
    if value is None:
        del state[name]
    else:
        state[name] = value
    with pytest.raises(ValueError, match=message):
        convert_hp_checkpoint(theirs, 'a.pth')


@pytest.mark.parametrize('content', [[], {}, dict(state_dict={})], ids=str)
def test_other_files(content):
    with pytest.raises(ValueError, match='a.pth is not a checkpoint of HP, with net_model_state_dict'):
        convert_hp_checkpoint(content, 'a.pth')


@pytest.mark.slow
def test_command(theirs, tmp_path):
    """A file with a pickled object is refused without --trust, and read inertly with it."""
    module = ModuleType('their_package')
    module.Settings = type('Settings', (), dict(__module__='their_package'))
    sys.modules['their_package'] = module
    try:
        torch.save(theirs | dict(best=module.Settings()), tmp_path / 'theirs.pth')
    finally:
        del sys.modules['their_package']
    command = [sys.executable, str(TOOL), str(tmp_path / 'theirs.pth'), str(tmp_path / 'ours.pth')]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1 and 'allow it with --trust' in refused.stderr
    done = subprocess.run([*command, '--trust'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '4 classes, code of 10 channels' in done.stdout
    assert 'tools/test.py configs/hp_' in done.stdout and (tmp_path / 'ours.pth').is_file()
