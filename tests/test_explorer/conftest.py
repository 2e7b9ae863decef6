"""A small model of three levels, the same host without OMH, smooth images, and the page of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

import omh_mmseg  # noqa: F401
from omh_mmseg.apis import SegmentationInferencer
from omh_mmseg.explorer import ReportOptions, write_report
from omh_mmseg.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CLASSES = ('ground', 'plant', '<b>sky</b>', 'building', 'vehicle', 'person')
SIZES = dict(a=(96, 144), b=(120, 96), c=(96, 96))
QUIET = ReportOptions(progress=False)


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Inferencers ``omh``, whose coarsest clusters have classes, and ``host``, whose clusters have none."""
    folder = tmp_path_factory.mktemp('models')
    built = {}
    for name in ('omh', 'host'):
        config = Config.fromfile(str(CONFIGS / f'{"omh_" if name == "omh" else ""}stego_vit-t8_demo.py'))
        config.model.backbone.checkpoint = None
        config.model.backbone.backbone.arch = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
        config.dump(str(folder / f'{name}.py'))
        init_default_scope('mmseg')
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()
        # The centres of random codes lie among these, so that every level divides the images.
        for level in [model.cluster_probe.centres, *(model.omh_head.centres if name == 'omh' else [])]:
            level.data = level.data + 2 * model.decode_head.linear.bias.data
        if name == 'omh':
            model.assignment.set('pred_level1', [1, 0, 2, 3, 5, -1])
        meta = dict(dataset_meta=dict(classes=CLASSES, palette=[[40 * n, 255 - 40 * n, 128] for n in range(6)]))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / f'{name}.pth')
        built[name] = SegmentationInferencer(str(folder / f'{name}.py'), folder / f'{name}.pth', device='cpu')
        DefaultScope._instance_dict.clear()
    return SimpleNamespace(folder=folder, **built)


@pytest.fixture(scope='session')
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three files of different sizes and smooth content; the name of the last is markup."""
    folder, random = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
    paths = []
    for name, size in SIZES.items():
        smooth = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        path = folder / ('<i>c.png' if name == 'c' else f'{name}.png')
        smooth.resize(size[::-1], Image.Resampling.BILINEAR).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture(scope='session')
def report(models, images, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """``folder`` and ``summary`` of the page of the three images."""
    folder = tmp_path_factory.mktemp('page') / 'report'
    return SimpleNamespace(folder=folder, summary=write_report(models.omh, images, folder, options=QUIET))
