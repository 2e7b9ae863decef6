"""Checkpoints with the structure of PriMaPs', made here, as checkpoints of ours."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import load_checkpoint

from omh_mmseg.commands.model_converters import primaps2omh
from omh_mmseg.models.converters.dino import convert_file
from omh_mmseg.models.converters.primaps import convert_primaps_checkpoint
from omh_mmseg.registry import MODELS


@pytest.fixture
def tiny_vit(tiny_vit) -> dict:
    """The tiny ViT with DINO's MLP ratio."""
    tiny_vit['arch']['feedforward_channels'] = 96
    return tiny_vit


@pytest.fixture
def theirs(dino_state) -> dict:
    """A tiny backbone and 4 classes, as Lightning saves the EM stage (docs/methods/primaps.md 9)."""
    state = OrderedDict((f'net.model.{key}', value) for key, value in dino_state(24, 2, 8, 4).items())
    for part in ('seghead', 'cluster_probe.online_model', 'cluster_probe.ema_model'):
        state[f'{part}.weight_v'] = torch.randn(4, 24, 1, 1)
        state[f'{part}.weight_g'] = torch.rand(4, 1, 1, 1) + 0.5
    state['cluster_probe.initted'], state['cluster_probe.step'] = torch.tensor(True), torch.tensor([7])
    state['linear_probe.weight'], state['linear_probe.bias'] = torch.randn(4, 24, 1, 1), torch.randn(4)
    return dict(global_step=71, state_dict=state)


def test_our_model_computes_the_reference_forward_pass(theirs, tiny_vit, host_parts, tmp_path: Path, capsys) -> None:
    torch.save(theirs, tmp_path / 'theirs.ckpt')
    primaps2omh.main([str(tmp_path / 'theirs.ckpt'), str(tmp_path / 'ours.pth')])
    assert '4 classes, code of 24 channels' in capsys.readouterr().out
    model = MODELS.build(
        dict(
            type='PriMaPs', num_classes=4, backbone=dict(type='FrozenBackbone', backbone=tiny_vit),
            decode_head=dict(type='IdentityHead'), linear_probe=dict(type='LinearProbe'), **host_parts('PriMaPs'),
        )
    ).eval()  # fmt: skip
    load_checkpoint(model, str(tmp_path / 'ours.pth'), strict=True)
    features, state = model.backbone(torch.randn(1, 3, 32, 32)), theirs['state_dict']

    def logits(part: str) -> torch.Tensor:
        rows = F.normalize(state[f'{part}.weight_v'], dim=1) * state[f'{part}.weight_g']
        return F.conv2d(features, rows)

    torch.testing.assert_close(model.cluster_probe(features), logits('cluster_probe.ema_model'))
    torch.testing.assert_close(model.cluster_probe.running(features), logits('seghead'))
    linear = F.conv2d(features, state['linear_probe.weight'], state['linear_probe.bias'])
    torch.testing.assert_close(model.linear_probe(features), linear)
    assert (int(model.iteration), int(model.cluster_probe.updates)) == (71, 7) and bool(model.cluster_probe.started)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('seghead.weight_v', None, 'not a checkpoint of the EM stage of PriMaPs, with seghead.weight_v'),
        ('cluster_probe.ema_model.weight_g', torch.ones(3, 1, 1, 1), r'weight_g is \(3, 1, 1, 1\), not \(4, 1, 1, 1\)'),
        ('decoder.weight', torch.ones(2), 'without a counterpart in our PriMaPs: decoder.weight'),
        ('net.model.blocks.1.attn.qkv.weight', None, 'missing layers.1.attn'),
        ('linear_probe.weight', torch.ones(4), r'linear_probe.weight should be a tensor of 4 dim.* is of \(4,'),
        ('seghead.weight_v', torch.ones(4, 24, 1, 1, dtype=torch.long), 'weight_v holds torch.int64'),
        ('cluster_probe.step', torch.tensor([-1]), 'cluster_probe.step should count updates'),
        ('cluster_probe.step', torch.tensor([float('nan')]), 'cluster_probe.step should count updates'),
        ('cluster_probe.step', 70, 'cluster_probe.step should count updates, and is 70'),
        ('net.model.patch_embed.proj.weight', torch.ones(24, 192), 'weight should be a tensor of 4 dimensions'),
    ],
)
def test_parts_that_are_missing_wrong_or_unknown(theirs, name, value, message) -> None:
    if value is None:
        del theirs['state_dict'][name]
    else:
        theirs['state_dict'][name] = value
    with pytest.raises(ValueError, match=message):
        convert_primaps_checkpoint(theirs, 'a.ckpt')


def test_other_files(theirs, tmp_path: Path) -> None:
    for content in ([], {}, dict(state_dict={})):
        with pytest.raises(ValueError, match='a.ckpt is not a checkpoint of the EM stage'):
            convert_primaps_checkpoint(content, 'a.ckpt')
    state = {key: value for key, value in theirs['state_dict'].items() if not key.startswith('net.')}
    with pytest.raises(ValueError, match='has no backbone .* on top of another host'):
        convert_primaps_checkpoint(dict(state_dict=state), 'a.ckpt')
    theirs['state_dict']['seghead.weight_v'][0] = torch.nan
    torch.save(theirs, tmp_path / 'a.ckpt')
    with pytest.raises(ValueError, match='weights that are not finite: cluster_probe.directions. Its training had'):
        convert_file(convert_primaps_checkpoint, tmp_path / 'a.ckpt', tmp_path / 'ours.pth')
    with pytest.raises(FileNotFoundError):
        convert_file(convert_primaps_checkpoint, tmp_path / 'absent.ckpt', tmp_path / 'ours.pth')
