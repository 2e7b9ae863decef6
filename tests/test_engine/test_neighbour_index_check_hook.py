from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from omh_mmseg.datasets.fingerprint import dataset_fingerprint, model_fingerprint
from omh_mmseg.datasets.neighbours.index import write_index
from omh_mmseg.registry import DATASETS, HOOKS
from omh_mmseg.utils.files import replaced_when_complete


@pytest.fixture
def runner(tmp_path):
    """The part of a runner that the hook looks at, with a fitting index."""
    init_default_scope('mmseg')
    lines: list[str] = []
    generator = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f'{number}.png')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    images = DATASETS.build(
        dict(type='FolderSegDataset', data_root=str(tmp_path), num_classes=2, pipeline=pipeline)
    )
    model = nn.Module()
    model.backbone = nn.Conv2d(3, 4, 2)
    model_cfg = ConfigDict(
        backbone=dict(type='FrozenBackbone', patch=8), data_preprocessor=dict(mean=[1.0] * 3, std=[2.0] * 3)
    )
    fingerprint = dataset_fingerprint(images)
    fingerprint |= model_fingerprint(model.backbone, model_cfg.backbone, model_cfg.data_preprocessor)
    neighbours = (np.arange(4)[:, None] + np.arange(4)) % 4
    with replaced_when_complete(tmp_path / 'index.npz') as file:
        write_index(file, neighbours, fingerprint)
    pairs = dict(type='NeighbourPairs', dataset=images, index=str(tmp_path / 'index.npz'), num_neighbours=2)
    return SimpleNamespace(
        model=model,
        cfg=Config(dict(model=model_cfg)),
        logger=SimpleNamespace(info=lines.append),
        lines=lines,
        train_dataloader=SimpleNamespace(dataset=DATASETS.build(pairs)),
    )


def check(runner, **options) -> None:
    HOOKS.build(dict(type='NeighbourIndexCheckHook', **options)).before_train(runner)


def test_fitting_index_passes(runner):
    check(runner)


def test_dropout_of_the_features_is_logged_and_accepted(runner):
    check(runner)
    assert runner.lines == []
    runner.train_dataloader.dataset.fingerprint['train_mode_dropout'] = dict(probability=0.1, seed=5)
    check(runner)
    assert 'index.npz was made with channel dropout 0.1 of the features, seed 5' in runner.lines[0]
    runner.cfg.model.backbone.patch = 16
    with pytest.raises(ValueError, match='--force --train-mode-dropout 0.1 --dropout-seed 5'):
        check(runner)


def test_other_weights(runner):
    with torch.no_grad():
        runner.model.backbone.bias[0] += 1
    with pytest.raises(ValueError, match=r'(?s)another backbone:\s+weights: .*prepare.py neighbours.*--force'):
        check(runner)
    check(runner, check_weights=False)


def test_other_backbone(runner):
    runner.cfg.model.backbone.patch = 16
    with pytest.raises(ValueError, match='backbone: the index has .*8.0.*, this run has .*16.0'):
        check(runner, check_weights=False)


def test_config_file_of_the_run_is_named(runner, tmp_path):
    runner.cfg.model.backbone.patch = 16
    with pytest.raises(ValueError, match=r'prepare.py neighbours CONFIG --force'):
        check(runner)
    path = tmp_path / 'mine.py'
    runner.cfg.dump(path)
    runner.cfg = Config.fromfile(path)
    with pytest.raises(ValueError, match=rf'prepare.py neighbours {path} --force\n.*the --cfg-options of this run'):
        check(runner)


def test_other_normalisation(runner):
    runner.cfg.model.data_preprocessor.mean = [0.0] * 3
    with pytest.raises(ValueError, match='normalisation: the index has'):
        check(runner)


def test_data_sets_without_pairs_pass(runner):
    runner.train_dataloader.dataset = runner.train_dataloader.dataset.dataset
    runner.cfg = ConfigDict(model=dict())
    check(runner)
