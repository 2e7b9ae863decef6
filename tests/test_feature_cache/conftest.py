"""A folder of small photos, a tiny frozen backbone, and runs of the three hosts on them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor

import omh_mmseg  # noqa: F401
from omh_mmseg.registry import MODELS

ITEMS, CLASSES = 10, 4
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=48),
    img_size=32,
    patch_size=8,
    out_type='featmap',
)
PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='ResizeToCover', size=32),
    dict(type='CentreCrop', size=32),
    dict(type='PackSegInputs'),
]
OMH = dict(type='OMHHead', centres=dict(start='random'), reach=dict(type='FixedWeight', begin=0))
HOSTS: dict[str, dict[str, Any]] = dict(
    stego=dict(
        type='STEGO',
        linear_probe=dict(type='LinearProbe'),
        cluster_probe=dict(type='ClusterProbe'),
        decode_head=dict(type='ProjectionHead', channels=10),
        correlation_loss=dict(
            type='STEGOCorrelationLoss', self_weight=0.67, self_shift=0.08, knn_weight=0.25, knn_shift=0.02,
            rand_weight=0.63, rand_shift=0.66, feature_samples=3,
        ),
    ),
    hp=dict(
        type='HiddenPositives',
        linear_probe=dict(type='LinearProbe'),
        cluster_probe=dict(type='ClusterProbe'),
        decode_head=dict(type='ProjectionHead', channels=10),
        hidden_positive_loss=dict(
            type='HiddenPositiveLoss', temperature=0.6, random_negatives=0.3, consistency_weight=0.05
        ),
        pool_size=8,
        warmup=2,
    ),
    smooseg=dict(
        type='SmooSeg',
        decode_head=dict(type='ProjectionHead', channels=10, act_cfg=dict(type='SiLU')),
        cluster_probe=dict(type='PrototypeHead', temperature=0.1, momentum=0.9),
        smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=0.1, across_shift=0.3),
    ),
    primaps=dict(
        type='PriMaPs',
        linear_probe=dict(type='LinearProbe'),
        decode_head=dict(type='IdentityHead'),
        cluster_probe=dict(type='MomentumPrototypes', interval=3),
        prototype_loss=dict(type='ClassFrequencyLoss'),
        proposals=dict(type='MaskProposals', crf=None),
    ),
    eagle=dict(
        type='EAGLE',
        linear_probe=dict(type='LinearProbe'),
        cluster_probe=dict(type='ClusterProbe'),
        decode_head=dict(type='ProjectionHead', channels=10),
        correspondence_loss=dict(
            type='AdaptiveCorrespondenceLoss', positive_weight=0.25, negative_weight=0.63, feature_samples=3
        ),
        object_loss=dict(type='ObjectContrastLoss'),
        eigen_cue=dict(type='EigenCue'),
        switch_step=3,
    ),
)  # fmt: skip


@pytest.fixture(autouse=True)
def scope(mmseg_scope: None) -> None:
    """mmseg's registries and a fixed seed."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos with labels of four classes for training, and four of different sizes for validation."""
    generator = np.random.default_rng(0)
    sizes = dict(train=[(40, 48)] * ITEMS, val=[(32, 40), (40, 32), (32, 40), (48, 48)])
    for split, ones in sizes.items():
        for number, size in enumerate(ones):
            for kind, top, shape in (('images', 256, (*size, 3)), ('labels', CLASSES, size)):
                path = tmp_path / 'photos' / kind / split / f'{number:02d}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, top, shape, dtype=np.uint8)).save(path)
    return tmp_path / 'photos'


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of the tiny ViT."""
    torch.manual_seed(7)
    path = tmp_path / 'vit.pth'
    torch.save(MODELS.build(copy.deepcopy(VIT)).state_dict(), path)
    return path


@pytest.fixture
def settings(photos: Path, weights: Path, tmp_path: Path) -> Callable[..., Config]:
    """``settings('hp', omh=True, workers=2, folder=..., **changes)``: the config of a run; changes by dotted key."""

    def write(
        host: str = 'stego', omh: bool = False, workers: int = 0, folder: Path | None = None, steps: int = 6, **changes
    ) -> Config:
        train: dict[str, Any] = dict(
            type='FolderSegDataset', data_root=str(photos), split='train', num_classes=CLASSES, pipeline=PIPELINE
        )
        if host == 'stego':
            index = str(tmp_path / 'index.npz')
            train = dict(type='NeighbourPairs', index=index, num_neighbours=3, dataset=train)
        loader = dict(num_workers=workers, persistent_workers=workers > 0)
        val = loader | dict(
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
            dataset=dict(
                type='FolderSegDataset', data_root=str(photos), split='val', num_classes=CLASSES, test_mode=True,
                pipeline=[PIPELINE[0], PIPELINE[1], PIPELINE[4]],
            ),
        )  # fmt: skip
        hooks: list[dict[str, Any]] = [dict(type='RandomStateHook')]
        if host == 'hp':
            hooks.append(dict(type='ReferencePoolHook', renew_interval=2))
        if host == 'primaps':
            hooks.append(dict(type='PrototypeStartHook'))
        config = Config(
            dict(
                default_scope='mmseg',
                model=HOSTS[host]
                | dict(
                    num_classes=CLASSES,
                    data_preprocessor=dict(
                        type='ViewsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True
                    ),
                    backbone=dict(type='FrozenBackbone', backbone=VIT, checkpoint=str(weights)),
                    omh_head=(OMH | dict(match=None) if host == 'primaps' else OMH) if omh else None,
                ),
                train_dataloader=loader
                | dict(
                    batch_size=4,
                    drop_last=True,
                    sampler=dict(type='SeededInfiniteSampler', shuffle=True),
                    dataset=train,
                ),
                train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=1000),
                optim_wrapper=dict(
                    type='OptimWrapper',
                    constructor='TrainableOptimWrapperConstructor',
                    optimizer=dict(type='Adam', lr=1e-3),
                ),
                val_dataloader=val,
                val_cfg=dict(type='ValLoop'),
                val_evaluator=dict(type='UnsupervisedIoUMetric'),
                test_dataloader=val,
                test_cfg=dict(type='TestLoop'),
                test_evaluator=dict(type='UnsupervisedIoUMetric'),
                default_hooks=dict(
                    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1000),
                    logger=dict(type='LoggerHook', interval=1000, log_metric_by_epoch=False),
                    feature_cache=dict(type='FeatureCacheHook', folder=None if folder is None else str(folder)),
                ),
                custom_hooks=hooks,
                log_processor=dict(by_epoch=False),
                log_level='ERROR',
                randomness=dict(seed=3),
                work_dir=str(tmp_path / 'work'),
            )
        )
        config.merge_from_dict(changes)
        return config

    return write


class Diary(Hook):
    """Keeps all losses of each step."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        self.losses.append({name: float(torch.as_tensor(value).detach()) for name, value in (outputs or {}).items()})


@pytest.fixture
def train(tmp_path: Path) -> Callable[[Config], tuple[Runner, list[dict[str, float]]]]:
    """Train as a config says: the runner, and the losses of each step."""
    count = [0]

    def run(config: Config) -> tuple[Runner, list[dict[str, float]]]:
        from omh_mmseg.preparation.neighbours import prepare_neighbours

        count[0] += 1
        if config.model.type == 'STEGO':
            prepare_neighbours(config, num_neighbours=4, progress=False, if_missing=True)
        config.experiment_name = f'{tmp_path.name}_{count[0]}'
        config.work_dir = str(tmp_path / f'run{count[0]}')
        runner = Runner.from_cfg(config)
        diary = Diary()
        runner.register_hook(diary)
        runner.train()
        return runner, diary.losses

    return run


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images of each forward pass of a frozen backbone from now on."""
    from omh_mmseg.models.backbones import FrozenBackbone

    counted: list[int] = []
    taps = FrozenBackbone.taps

    def counting(self: FrozenBackbone, images: Tensor, *args: Any, **options: Any) -> Any:
        counted.append(len(images))
        return taps(self, images, *args, **options)

    monkeypatch.setattr(FrozenBackbone, 'taps', counting)
    return counted
