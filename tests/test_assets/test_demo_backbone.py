"""The shipped demo backbone: size, format, and what its features are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import omh_mmseg
from omh_mmseg.datasets.scenes import HIERARCHY, draw_scene
from omh_mmseg.registry import MODELS

WEIGHTS = Path(omh_mmseg.__file__).parent / 'assets' / 'vit-t8_demo.pth'
CONFIG = Path(__file__).parents[2] / 'configs/stego_vit-t8_demo.py'
OBJECTS = 12


def test_weights_are_small_plain_float16_tensors() -> None:
    assert WEIGHTS.stat().st_size < 6e6
    state = torch.load(WEIGHTS, weights_only=True)
    assert {'cls_token', 'pos_embed', 'patch_embed.projection.weight', 'layers.0.attn.qkv.weight', 'ln1.weight'} <= set(
        state
    )
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in state.values())
    assert state['pos_embed'].shape == (1, 16 * 16 + 1, 192)


@pytest.fixture(scope='module')
def scenes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalised images (n, 3, 128, 128) and object shares per patch (n, 16, 16, 12), of 30 train and 40 val scenes."""
    sets = []
    for split, count in (('train', 30), ('val', 40)):
        drawn = [draw_scene(2026, split, index) for index in range(count)]
        images = torch.tensor(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2).float()
        mean, std = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])[..., None, None]
        labels = torch.tensor(HIERARCHY.object_of_part[np.stack([parts for _, parts in drawn])])
        shares = F.avg_pool2d(F.one_hot(labels, OBJECTS).permute(0, 3, 1, 2).float(), 8).permute(0, 2, 3, 1)
        sets += [(images - mean) / std, shares]
    return sets[0], sets[1], sets[2], sets[3]


def _features(shipped: bool, *batches: Tensor) -> list[Tensor]:
    backbone = Config.fromfile(CONFIG).model.backbone
    if not shipped:
        backbone.checkpoint = None
    torch.manual_seed(0)
    model = MODELS.build(backbone)
    model.init_weights()
    return [model(images).permute(0, 2, 3, 1).reshape(-1, model.out_channels) for images in batches]


def _mean_iou(counts: Tensor) -> float:
    matched = counts.diag()
    union = counts.sum(0) + counts.sum(1) - matched
    return 100 * float((matched / union)[union > 0].mean())


def _k_means(features: Tensor, truth: Tensor) -> float:
    """Mean over 4 seeds of the Hungarian-matched mIoU of k-means on normalised features."""
    features = F.normalize(features, dim=1)
    scores = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        centres = features[torch.randperm(len(features), generator=generator)[:1]]
        for _ in range(OBJECTS - 1):
            distance = torch.cdist(features, centres).min(1).values.square()
            centres = torch.cat([centres, features[torch.multinomial(distance, 1, generator=generator)]])
        for _ in range(20):
            members = F.one_hot(torch.cdist(features, centres).argmin(1), OBJECTS).float()
            centres = members.T @ features / members.sum(0).clamp(min=1)[:, None]
        counts = F.one_hot(truth, OBJECTS).float().T @ members
        scores.append(_mean_iou(counts[:, linear_sum_assignment(-counts)[1]]))
    return float(np.mean(scores))


def _linear(train: Tensor, shares: Tensor, val: Tensor, truth: Tensor) -> float:
    """mIoU of a ridge regression from features to object shares."""
    mean, std = train.mean(0), train.std(0)
    train, val = (F.pad((features - mean) / std, (0, 1), value=1.0) for features in (train, val))
    weights = torch.linalg.solve(train.T @ train + 10 * torch.eye(train.shape[1]), train.T @ shares)
    predicted = (val @ weights).argmax(1)
    return _mean_iou(F.one_hot(truth, OBJECTS).float().T @ F.one_hot(predicted, OBJECTS).float())


def test_features_are_better_than_random_ones(scenes: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Object level; omh_mmseg/assets/README.md has the numbers on the full sets."""
    train_images, train_shares, val_images, val_shares = scenes
    truth, scores = val_shares.reshape(-1, OBJECTS).argmax(1), {}
    for name in ('random', 'shipped'):
        train, val = _features(name == 'shipped', train_images, val_images)
        scores[name] = (_k_means(val, truth), _linear(train, train_shares.reshape(-1, OBJECTS), val, truth))
    assert scores['shipped'][0] > scores['random'][0] + 1, scores
    assert scores['shipped'][1] > scores['random'][1] + 3, scores
