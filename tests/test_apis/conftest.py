"""A small model as a config and a checkpoint, and a few images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

import omh_mmseg  # noqa: F401
from omh_mmseg.registry import MODELS

DEMO = Path(__file__).resolve().parents[2] / 'configs' / 'omh_stego_vit-t8_demo.py'
CLASSES = ('ground', 'plant', 'sky', 'building', 'vehicle', 'person')
UNLABELLED = torch.full((1, 8, 8), 255)
PALETTE = [[40 * index, 255 - 40 * index, 128] for index in range(6)]


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def trained_demo(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """``config`` (a file), ``checkpoint``, ``matched``, which knows the classes of the clusters, ``unlabelled``."""
    folder = tmp_path_factory.mktemp('model')
    config = Config.fromfile(str(DEMO))
    config.model.backbone.checkpoint = None
    config.model.backbone.backbone.arch = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
    config.dump(str(folder / 'config.py'))
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    meta = dict(dataset_meta=dict(classes=CLASSES, palette=PALETTE))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'plain.pth')
    model.assignment.set('pred_sem_seg', [5, 4, 3, 2, 1, -1])
    model.assignment.set('pred_level1', [1, 0, 3, 2, 5, 4])
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'matched.pth')
    model.linear_probe.train().loss(torch.zeros(1, model.linear_probe.classifier.in_channels, 2, 2), UNLABELLED)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'unlabelled.pth')
    DefaultScope._instance_dict.clear()
    return SimpleNamespace(
        config=folder / 'config.py', checkpoint=folder / 'plain.pth', matched=folder / 'matched.pth', meta=meta,
        unlabelled=folder / 'unlabelled.pth',
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of two sizes, one of them in a folder below, one grey."""
    root = tmp_path / 'images'
    (root / 'more').mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, shape in (('a.png', (96, 128, 3)), ('b.jpg', (96, 128, 3)), ('more/c.png', (64, 60))):
        smooth = random.integers(0, 256, (8, 8, *shape[2:]), dtype=np.uint8)
        Image.fromarray(smooth).resize(shape[1::-1], Image.Resampling.BILINEAR).save(root / name)
    (root / 'notes.txt').write_text('no image')
    return root


@pytest.fixture
def inferencer(trained_demo) -> Callable:
    from omh_mmseg.apis import SegmentationInferencer

    def build(checkpoint: str = 'matched', **options) -> SegmentationInferencer:
        weights = getattr(trained_demo, checkpoint)
        return SegmentationInferencer(str(trained_demo.config), weights, device='cpu', **options)

    return build
