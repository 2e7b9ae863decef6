"""Checkpoints with the structure of EAGLE's, made here, as checkpoints of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import load_checkpoint
from torch import Tensor

from omh_mmseg.commands.model_converters import eagle2omh
from omh_mmseg.models.converters.dino import convert_file
from omh_mmseg.models.converters.eagle import convert_eagle_checkpoint
from omh_mmseg.registry import MODELS


@pytest.fixture
def theirs(dino_state) -> dict:
    """Three blocks of 24 channels, a code of 10, 4 classes and an extra cluster."""
    state = {f'net.model.{key}': value for key, value in dino_state(24, 3, 8, 4).items()}
    sizes = {
        'net.cluster1.0': (10, 72, 1, 1), 'net.cluster2.0': (72, 72, 1, 1), 'net.cluster2.2': (10, 72, 1, 1),
        'linear_probe': (4, 10, 1, 1), 'project_head': (10, 10), 'decoder': (72, 10, 1, 1),
    }  # fmt: skip
    for name, size in sizes.items():
        state |= {f'{name}.weight': torch.randn(size), f'{name}.bias': torch.randn(size[0])}
    names = ('cluster_probe', 'train_cluster_probe', 'train_cluster_probe_eigen', 'train_cluster_probe_eigen_aug')
    for name, width in zip(names, (10, 10, 3, 3)):
        state[f'{name}.clusters'] = torch.randn(5, width)
    state['CELoss.learned_centroids'] = torch.randn(4, 10)
    return dict(state_dict=state, global_step=700)


def test_our_model_computes_the_reference_forward_pass(theirs, tiny_vit, host_parts, tmp_path, capsys):
    tiny_vit['arch'].update(feedforward_channels=96, num_layers=3)
    torch.save(theirs, tmp_path / 'theirs.ckpt')
    eagle2omh.main([str(tmp_path / 'theirs.ckpt'), str(tmp_path / 'ours.pth')])
    told = capsys.readouterr().out
    assert '4 classes and 1 extra clusters, code of 10 channels' in told and 'CELoss.learned_centroids' in told
    model = MODELS.build(
        dict(
            type='EAGLE', num_classes=4, decode_head=dict(type='ProjectionHead', channels=10),
            linear_probe=dict(type='LinearProbe'), **host_parts('EAGLE'),
            backbone=dict(type='FrozenBackbone', backbone=tiny_vit, feature='keys', out_indices=(0, 1, 2)),
        )
    ).eval()  # fmt: skip
    load_checkpoint(model, str(tmp_path / 'ours.pth'))
    images, state = torch.randn(1, 3, 32, 32), theirs['state_dict']
    features = model.backbone(images)

    def dense(name: str, maps: Tensor) -> Tensor:
        return F.conv2d(maps, state[f'net.{name}.weight'], state[f'net.{name}.bias'])

    code = dense('cluster1.0', features) + dense('cluster2.2', F.relu(dense('cluster2.0', features)))
    torch.testing.assert_close(model.encode(images), code)
    cosines = F.cosine_similarity(code[:, None], state['cluster_probe.clusters'][None, :, :, None, None], dim=2)
    torch.testing.assert_close(model(images, mode='tensor'), cosines)
    for number, name in enumerate(('', '_aug')):
        assert torch.equal(model.eigen_lookups[number].centres, state[f'train_cluster_probe_eigen{name}.clusters'])
    assert int(model.iteration) == 700 and torch.equal(model.project_head.weight, state['project_head.weight'])


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('net.cluster2.0.weight', None, 'holds no tensor net.cluster2.0.weight'),
        ('net.cluster1.0.weight', torch.zeros(10, 24, 1, 1), r'is \(10, 24, 1, 1\), not \(10, 72, 1, 1\)'),
        ('linear_probe.weight', torch.zeros(6, 10, 1, 1), 'there are 5 clusters for 6 classes'),
        ('net.other.weight', torch.zeros(2), 'without a counterpart in our EAGLE: net.other.weight'),
        ('project_head.weight', torch.zeros(3, 3), 'project_head.weight is'),
        ('project_head.weight', 'a', 'holds no tensor project_head.weight'),
        ('project_head.bias', None, 'holds no tensor project_head.bias'),
        ('train_cluster_probe_eigen.clusters', None, 'holds no tensor train_cluster_probe_eigen.clusters'),
        ('cluster_probe.clusters', torch.zeros(5), r'cluster_probe.centres should be a tensor of 2 dimensions'),
        ('linear_probe.weight', torch.zeros(()), r'should be a tensor of 4 dimensions, and is of \(\)'),
    ],
)
def test_parts_that_are_missing_wrong_or_unknown(theirs, name, value, message):
    if value is None:
        del theirs['state_dict'][name]
    else:
        theirs['state_dict'][name] = value
    with pytest.raises(ValueError, match=message):
        convert_eagle_checkpoint(theirs, 'a.ckpt')


def test_only_what_is_evaluated(theirs, tmp_path: Path):
    """A file without what training alone needs is converted as well."""
    state = theirs['state_dict']
    theirs['state_dict'] = {key: value for key, value in state.items() if 'eigen' not in key and 'project' not in key}
    torch.save(theirs, tmp_path / 'theirs.ckpt')
    converted = convert_file(convert_eagle_checkpoint, tmp_path / 'theirs.ckpt', tmp_path / 'ours.pth')
    assert (converted.channels, converted.num_classes, converted.extra_clusters) == (10, 4, 1)
    assert not any(key.startswith(('project_head', 'eigen')) for key in converted.state_dict)


def test_directions_of_other_eigenvectors_are_left_out(theirs):
    """Training alone needs them."""
    theirs['state_dict']['train_cluster_probe_eigen.clusters'] = torch.zeros(8, 3)
    converted = convert_eagle_checkpoint(theirs, 'a.ckpt')
    assert not any(key.startswith('eigen') for key in converted.state_dict)
    assert {'train_cluster_probe_eigen.clusters', 'train_cluster_probe_eigen_aug.clusters'} <= set(converted.left_out)


def test_too_few_blocks(theirs):
    state = theirs['state_dict']
    theirs['state_dict'] = {key: value for key, value in state.items() if '.blocks.2.' not in key}
    with pytest.raises(ValueError, match='2 blocks, of which 3 are used'):
        convert_eagle_checkpoint(theirs, 'a.ckpt')


@pytest.mark.parametrize('content', [[], {}, dict(state_dict={})], ids=str)
def test_other_files(content):
    with pytest.raises(ValueError, match='a.ckpt is not a checkpoint of EAGLE'):
        convert_eagle_checkpoint(content, 'a.ckpt')
