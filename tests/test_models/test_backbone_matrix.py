"""Every host on every kind of backbone, with and without OMH: a training step and a prediction."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from omh_mmseg.registry import MODELS

CLASSES = 4


def vit(patch: int, **options) -> dict:
    wrapped = dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=12, num_layers=1, num_heads=2, feedforward_channels=12),
        img_size=4 * patch, patch_size=patch, out_type='featmap', **options,
    )  # fmt: skip
    return dict(type='FrozenBackbone', backbone=wrapped, position_interpolation='dino')


# Each small, of the class, taps and fit that the blocks in configs/_base_/models/backbones have.
BACKBONES = {
    'ViT/8': vit(8),
    'ViT/16': vit(16),
    'ViT/14': vit(14, layer_scale_init_value=1e-5) | dict(input_fit='resize'),
    'Swin': dict(
        type='FrozenBackbone', out_indices=(0, 1), backbone=dict(
            type='mmpretrain.SwinTransformer', arch=dict(embed_dims=4, depths=[1] * 4, num_heads=[1, 1, 2, 2]),
            img_size=64, window_size=2, out_indices=(2, 3), pad_small_map=True,
        ),
    ),
    'ResNet': dict(
        type='FrozenBackbone', out_indices=(0, 1), backbone=dict(
            type='mmpretrain.ResNet', depth=18, base_channels=4, stem_channels=4, out_indices=(2, 3)
        ),
    ),
    'ConvNeXt': dict(
        type='FrozenBackbone', out_indices=(0, 1), backbone=dict(
            type='mmpretrain.ConvNeXt', arch=dict(depths=[1] * 4, channels=[4, 4, 8, 8]), out_indices=(2, 3),
            gap_before_final_norm=False,
        ),
    ),
    'MobileNetV2': dict(
        type='FrozenBackbone', out_indices=(0, 1),
        backbone=dict(type='mmpretrain.MobileNetV2', widen_factor=0.1, out_indices=(3, 4)),
    ),
}  # fmt: skip
HOSTS = {
    'STEGO': dict(
        type='STEGO', linear_probe=dict(type='LinearProbe'), cluster_probe=dict(type='ClusterProbe'),
        decode_head=dict(type='ProjectionHead', channels=8), correlation_loss=dict(
            type='STEGOCorrelationLoss', self_weight=0.67, self_shift=0.08, knn_weight=0.25, knn_shift=0.02,
            rand_weight=0.63, rand_shift=0.66, feature_samples=5,
        ),
    ),
    'HP': dict(
        type='HiddenPositives', linear_probe=dict(type='LinearProbe'), cluster_probe=dict(type='ClusterProbe'),
        decode_head=dict(type='ProjectionHead', channels=8), pool_size=8, total_iterations=10,
        hidden_positive_loss=dict(
            type='HiddenPositiveLoss', temperature=0.6, random_negatives=0.3, consistency_weight=0.05
        ),
    ),
    'SmooSeg': dict(
        type='SmooSeg', decode_head=dict(type='ProjectionHead', channels=8, act_cfg=dict(type='SiLU')),
        cluster_probe=dict(type='PrototypeHead', temperature=0.1, momentum=0.998),
        smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=0.1, across_shift=0.5),
    ),
    'PriMaPs': dict(
        type='PriMaPs', decode_head=dict(type='IdentityHead'), cluster_probe=dict(type='MomentumPrototypes'),
        linear_probe=dict(type='LinearProbe'), prototype_loss=dict(type='ClassFrequencyLoss'),
        proposals=dict(type='MaskProposals', crf=None),
    ),
    'EAGLE': dict(
        type='EAGLE', linear_probe=dict(type='LinearProbe'), cluster_probe=dict(type='ClusterProbe'),
        decode_head=dict(type='ProjectionHead', channels=8), object_loss=dict(type='ObjectContrastLoss'),
        eigen_cue=dict(type='EigenCue'), switch_step=0, correspondence_loss=dict(
            type='AdaptiveCorrespondenceLoss', positive_weight=0.25, negative_weight=0.63, feature_samples=5
        ),
    ),
}  # fmt: skip


def build(host: str, backbone: str, omh: bool) -> nn.Module:
    config = copy.deepcopy(HOSTS[host]) | dict(num_classes=CLASSES, backbone=copy.deepcopy(BACKBONES[backbone]))
    config['data_preprocessor'] = dict(
        type='ViewsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    )
    config['omh_head'] = dict(type='OMHHead', reach=dict(begin=0)) if omh else None
    if omh and host == 'PriMaPs':  # whose code no loss can move
        config['omh_head']['match'] = None
    if host == 'HP':
        config['local_affinity'] = 'attention' if backbone.startswith('ViT') else 'features'
    if host == 'EAGLE' and backbone.startswith('ViT'):
        config['backbone'] |= dict(feature='keys')
    model = MODELS.build(config)
    model.init_weights()
    if host == 'HP':
        for pool in (model.agnostic_pool, model.specific_pool):
            pool.copy_(F.normalize(torch.randn_like(pool), dim=1))
    if host == 'SmooSeg':  # at the start student and teacher coincide, and nothing pulls
        model.cluster_probe.centres.copy_(torch.randn_like(model.cluster_probe.centres))
    return model


def batch(host: str, side: int) -> dict:
    views = [[torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(2)] for _ in range(2)]
    labels = [PixelData(data=torch.randint(0, CLASSES, (1, side, side))) for _ in range(2)]
    meta = dict(img_shape=(side, side), ori_shape=(side, side))
    samples = [SegDataSample(gt_sem_seg=label, metainfo=meta) for label in labels]
    return dict(inputs=dict(zip(('anchor', 'neighbour'), views)) if host == 'STEGO' else views[0], data_samples=samples)


def train(model: nn.Module, host: str, side: int, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """One step as the runner takes it, after ``model.train()``."""
    model.train()
    losses = model.loss(**model.data_preprocessor(batch(host, side), True))
    optimiser.zero_grad()
    sum(value for name, value in losses.items() if name.startswith('loss_')).backward()
    optimiser.step()
    return losses


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are fastest so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize('omh', [False, True], ids=['host', 'OMH'])
@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('host', HOSTS)
def test_trains_and_predicts(host, backbone, omh):
    model = build(host, backbone, omh)
    frozen = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    assert any('running_mean' in key for key in frozen) == (backbone in ('ResNet', 'MobileNetV2'))
    # ViT/14 gets images of another size than its patches make.
    side = 2 * model.backbone.size_multiple if backbone != 'ViT/14' else 45
    optimiser = torch.optim.Adam([part for part in model.parameters() if part.requires_grad], 1e-3)
    losses = train(model, host, side, optimiser)
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert any(name.startswith('loss_omh') for name in losses) == omh
    for name, parameter in model.named_parameters():
        if name.startswith('backbone.'):
            assert parameter.grad is None and not parameter.requires_grad, name
    learning = model.cluster_probe if host == 'PriMaPs' else model.decode_head
    head = [parameter.grad for parameter in learning.parameters()]
    assert all(torch.isfinite(gradient).all() for gradient in head) and sum(item.norm() for item in head) > 0
    train(model, host, side, optimiser)
    # Parameters, and the statistics of batch normalisation, bit by bit.
    assert list(frozen) == list(model.backbone.state_dict())
    assert all(torch.equal(frozen[key], value) for key, value in model.backbone.state_dict().items())
    model.eval()
    sample = SegDataSample(metainfo=dict(img_shape=(side, side), ori_shape=(50, 70)))
    image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8)
    with torch.no_grad():
        (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
    names = {'pred_sem_seg'} | ({'pred_level1', 'pred_level2', 'pred_level3'} if omh else set())
    for name in names:
        assert result.get(name).data.shape == (1, 50, 70)
    assert 0 <= int(result.pred_sem_seg.data.min()) and int(result.pred_sem_seg.data.max()) < CLASSES


@pytest.mark.parametrize('backbone', [name for name in BACKBONES if not name.startswith('ViT')])
def test_attention_is_refused_before_the_training(backbone):
    config = copy.deepcopy(HOSTS['HP']) | dict(num_classes=CLASSES, backbone=copy.deepcopy(BACKBONES[backbone]))
    with pytest.raises(ValueError, match="local_affinity='attention' needs a backbone .* Set model.local_affinity="):
        MODELS.build(config)
