"""Small models and the deterministic tensors of docs/methods/test_vectors.md A."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import omh_mmseg  # noqa: F401
from omh_mmseg.registry import MODELS

TINY_VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48),
    img_size=32,
    patch_size=8,
    out_type='featmap',
)
TINY_STEGO = dict(
    type='STEGO',
    num_classes=4,
    data_preprocessor=dict(
        type='ViewsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(type='FrozenBackbone', backbone=TINY_VIT),
    decode_head=dict(type='ProjectionHead', channels=10),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    correlation_loss=dict(
        type='STEGOCorrelationLoss', self_weight=0.67, self_shift=0.08, knn_weight=0.25, knn_shift=0.02,
        rand_weight=0.63, rand_shift=0.66, feature_samples=5,
    ),
    omh_head=dict(type='OMHHead', centres=dict(start='random'), reach=dict(type='FixedWeight', begin=0)),
)  # fmt: skip
HOST_PARTS: dict[str, dict[str, Any]] = {
    'STEGO': dict(
        cluster_probe=dict(type='ClusterProbe'),
        correlation_loss=dict(
            type='STEGOCorrelationLoss', self_weight=0.67, self_shift=0.08, knn_weight=0.25, knn_shift=0.02,
            rand_weight=0.63, rand_shift=0.66, feature_samples=5,
        ),
    ),
    'HiddenPositives': dict(
        cluster_probe=dict(type='ClusterProbe'),
        hidden_positive_loss=dict(
            type='HiddenPositiveLoss', temperature=0.1, random_negatives=0.5, consistency_weight=0.05
        ),
        pool_size=6,
        total_iterations=10,
    ),
    'EAGLE': dict(
        cluster_probe=dict(type='ClusterProbe', extra_clusters=1),
        correspondence_loss=dict(
            type='AdaptiveCorrespondenceLoss', positive_weight=0.25, negative_weight=0.63, feature_samples=5
        ),
        object_loss=dict(type='ObjectContrastLoss'),
        eigen_cue=dict(type='EigenCue'),
    ),
    'SmooSeg': dict(
        cluster_probe=dict(type='PrototypeHead'),
        smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=-0.02, across_shift=0.5),
    ),
    'PriMaPs': dict(
        cluster_probe=dict(type='MomentumPrototypes'),
        prototype_loss=dict(type='ClassFrequencyLoss'),
        proposals=dict(type='MaskProposals', crf=None),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def scope(mmseg_scope: None) -> None:
    """mmseg's registries and a fixed seed."""


@pytest.fixture
def tiny_vit() -> dict:
    """Config of a ViT of mmpretrain: patch 8, native 32 x 32 pixels, 24 channels."""
    return copy.deepcopy(TINY_VIT)


@pytest.fixture
def tiny_stego() -> Callable[..., torch.nn.Module]:
    """``tiny_stego(omh_head=None, ...)``: STEGO with 4 classes on the tiny ViT; keywords replace parts."""

    def build(**parts) -> torch.nn.Module:
        model = MODELS.build(copy.deepcopy(TINY_STEGO) | parts)
        model.init_weights()
        return model

    return build


@pytest.fixture
def waves() -> Callable[..., Tensor]:
    """``waves(shape, a, b)``: the generator Q of docs/methods/test_vectors.md A."""

    def generate(shape: tuple[int, ...], a: float, b: float) -> Tensor:
        count = np.arange(np.prod(shape), dtype=np.int64)
        values = np.sin(a * ((count * count + 3 * count) % 9973) + b)
        return torch.tensor(values.astype(np.float32).reshape(shape))

    return generate


@pytest.fixture
def host_parts() -> Callable[[str], dict[str, Any]]:
    """``host_parts('STEGO')``: what a small model of a host has beside backbone, head and linear probe."""
    return lambda host: copy.deepcopy(HOST_PARTS[host])
