"""Checkpoints of version 0.1 (16c5bff) load, predict and train on as they did there.

Each file in ``tests/data/checkpoints`` was made at 16c5bff: a tiny model of a host with OMH after five steps of Adam on
random images, with its optimiser, what it predicted then for the images of seed 99 and the losses of its sixth step.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.registry import MODELS

CHECKPOINTS = Path(__file__).parents[1] / 'data' / 'checkpoints'
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=12, num_layers=1, num_heads=3, feedforward_channels=24),
    img_size=32, patch_size=8, out_type='featmap',
)  # fmt: skip
# Plans were solved by Sinkhorn's iterations.
LEARNED = dict(type='OMHHead', plan=dict(solver='sinkhorn'), reach=dict(begin=2))
FOLLOWING = dict(
    LEARNED, centres=dict(type='MomentumCentres', momentum=0.9, prior=1.0), match=dict(direction='both')
)  # fmt: skip
FROM_ACTIVATIONS = dict(LEARNED, centres=dict(start='random'), plan=dict(marginal='activation', solver='sinkhorn'))
HOSTS: dict[str, dict[str, Any]] = {
    'STEGO': dict(
        cluster_probe=dict(type='ClusterProbe'), linear_probe=dict(type='LinearProbe'), omh_head=LEARNED,
        correlation_loss=dict(
            type='STEGOCorrelationLoss', self_weight=0.67, self_shift=0.08, knn_weight=0.25, knn_shift=0.02,
            rand_weight=0.63, rand_shift=0.66, feature_samples=5,
        ),
    ),
    'HiddenPositives': dict(
        cluster_probe=dict(type='ClusterProbe'), linear_probe=dict(type='LinearProbe'), omh_head=FOLLOWING,
        hidden_positive_loss=dict(
            type='HiddenPositiveLoss', temperature=0.4, random_negatives=0.5, consistency_weight=0.0
        ),
        pool_size=6, total_iterations=10,
    ),
    'SmooSeg': dict(
        cluster_probe=dict(type='PrototypeHead'), omh_head=FROM_ACTIVATIONS,
        smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=-0.02, across_shift=0.5),
    ),
}  # fmt: skip


def batch(seed: int) -> tuple[Tensor, list[SegDataSample]]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 4, (2, 1, 32, 32), generator=generator)
    info = dict(img_shape=(32, 32), ori_shape=(32, 32))
    return images, [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=info) for label in labels]


@pytest.mark.parametrize('host', HOSTS)
def test_a_checkpoint_of_the_first_version(host):
    stored = torch.load(CHECKPOINTS / f'{host.lower()}_16c5bff.pth', weights_only=True)
    model = MODELS.build(
        dict(
            type=host, num_classes=4, data_preprocessor=dict(type='ViewsDataPreprocessor'),
            backbone=dict(type='FrozenBackbone', backbone=VIT), decode_head=dict(type='ProjectionHead', channels=5),
            gradient_log_interval=0, **copy.deepcopy(HOSTS[host]),
        )
    )  # fmt: skip
    model.load_state_dict(copy.deepcopy(stored['state_dict']))
    hosts_keys = {key for key in stored['state_dict'] if not key.startswith('omh_head.')}
    assert hosts_keys == {key for key in model.state_dict() if not key.startswith('omh_head.')}

    expected = stored['expected']
    images, samples = batch(99)
    predicted = model.eval().predict(images, samples)
    for field, maps in expected['predictions'].items():
        assert torch.equal(torch.stack([getattr(sample, field).data for sample in predicted]).to(torch.uint8), maps)
    parents = model.omh_head.hierarchy().parents
    assert all(torch.equal(torch.as_tensor(now), then) for now, then in zip(parents, expected['parents']))

    optimiser = torch.optim.Adam((parameter for parameter in model.parameters() if parameter.requires_grad), 0.01)
    optimiser.load_state_dict(stored['optimizer'])
    images, samples = batch(5)
    torch.manual_seed(105)
    inputs = dict(anchor=images, neighbour=images.flip(0)) if host == 'STEGO' else images
    losses = model.train().loss(inputs, samples)
    # Numbers of another machine: reduced in another order.
    for name, value in expected['losses'].items():
        torch.testing.assert_close(losses[name].detach(), value, rtol=1e-4, atol=1e-6)
    torch.stack([value for name, value in losses.items() if 'loss' in name]).sum().backward()
    optimiser.step()
