from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from omh_mmseg.datasets import prepare_neighbours as module
from omh_mmseg.datasets.neighbour_index import NeighbourIndex
from omh_mmseg.datasets.prepare_neighbours import find_pairs_config, prepare_neighbours
from omh_mmseg.registry import DATASETS, MODELS

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = REPOSITORY / 'tools' / 'precompute_neighbours.py'


@MODELS.register_module()
class PrepareTestBackbone(nn.Module):
    """Mean colours; channel dropout that must be off; a weight that a seed decides."""

    def __init__(self, stride: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(stride)
        self.dropout = nn.Dropout2d(0.5)
        self.scale = nn.Parameter(torch.ones(3) + seed)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.pool(images)) * self.scale.view(3, 1, 1)


@pytest.fixture
def cfg(folder, tmp_path):
    pipeline = [
        dict(type='LoadImageFromFile', imdecode_backend='pillow'),
        dict(type='ResizeToCover', size=(20, 28)),
        dict(type='CentreCrop', size=(20, 28)),
        dict(type='PackSegInputs'),
    ]
    images = dict(
        type='FolderSegDataset', data_root=str(folder(count=9)), split='train', num_classes=4, pipeline=pipeline
    )
    index = str(tmp_path / 'neighbours' / 'test_{fingerprint}.npz')
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                backbone=dict(type='PrepareTestBackbone'),
                data_preprocessor=dict(type='ViewsDataPreprocessor', mean=[100.0] * 3, std=[50.0] * 3, bgr_to_rgb=True),
            ),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                dataset=dict(type='NeighbourPairs', index=index, num_neighbours=3, dataset=images),
            ),
        )
    )


def test_index_is_that_of_the_training_data(cfg):
    path, made = prepare_neighbours(cfg, progress=False)
    assert made
    pairs = DATASETS.build(cfg.train_dataloader.dataset)
    assert pairs.index_path == path
    images = torch.stack([item['inputs'] for item in pairs.dataset])[:, [2, 1, 0]].float()
    features = nn.functional.normalize(((images - 100) / 50).mean(dim=(2, 3)), dim=1)
    similarity = (features @ features.T).fill_diagonal_(torch.inf)
    order = similarity.argsort(dim=1, descending=True).numpy()
    np.testing.assert_array_equal(pairs.neighbours[:, :5], order[:, :5])
    assert pairs.neighbours.shape == (9, 9)


def test_valid_index_is_kept_and_force_makes_it_anew(cfg):
    path, _ = prepare_neighbours(cfg, progress=False)
    before = path.stat().st_mtime_ns
    assert prepare_neighbours(cfg, progress=False) == (path, False)
    assert prepare_neighbours(cfg, progress=False, force=True, if_missing=True) == (path, False)
    assert path.stat().st_mtime_ns == before
    assert prepare_neighbours(cfg, progress=False, force=True) == (path, True)


@pytest.mark.parametrize(
    ('change', 'part'),
    [
        ({'model.backbone.stride': 2}, 'backbone: the index has'),
        ({'model.backbone.seed': 1}, 'weights: the index has'),
        ({'model.data_preprocessor.mean': [0.0] * 3}, 'normalisation: the index has'),
    ],
)
def test_another_models_index_is_not_overwritten(cfg, change, part):
    path, _ = prepare_neighbours(cfg, progress=False)
    content = path.read_bytes()
    cfg.merge_from_dict(change)
    with pytest.raises(FileExistsError, match=f'(?s)exists and is another index.*{part}.*--force'):
        prepare_neighbours(cfg, progress=False)
    assert path.read_bytes() == content
    assert prepare_neighbours(cfg, progress=False, force=True, if_missing=True) == (path, True)
    assert path.read_bytes() != content


def test_another_resolution_has_its_own_file(cfg):
    first, _ = prepare_neighbours(cfg, progress=False)
    cfg.train_dataloader.dataset.dataset.pipeline[2].size = (20, 20)
    second, made = prepare_neighbours(cfg, progress=False)
    assert made
    assert first != second
    assert first.is_file()


def test_damaged_and_narrow_files_are_not_taken_for_valid(cfg):
    path, _ = prepare_neighbours(cfg, num_neighbours=3, progress=False)
    with pytest.raises(FileExistsError, match='columns: the index has 3, 9 are asked for'):
        prepare_neighbours(cfg, progress=False)
    path.write_bytes(b'half a file')
    with pytest.raises(FileExistsError, match='is not a neighbour index or is damaged'):
        prepare_neighbours(cfg, progress=False)
    assert prepare_neighbours(cfg, progress=False, force=True, if_missing=True)[1]


def test_interrupt_leaves_nothing_half_written(cfg, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, 'build_neighbour_index', interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_neighbours(cfg, progress=False)
    folder = Path(cfg.train_dataloader.dataset.index).parent
    assert list(folder.iterdir()) == []


def test_wrong_configs(cfg):
    with pytest.raises(ValueError, match='this config needs no neighbour index'):
        find_pairs_config(Config(dict(train_dataloader=cfg.train_dataloader.dataset)))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' is not available here; use --device cpu"):
            prepare_neighbours(cfg, device='cuda')
    cfg.train_dataloader.dataset.dataset.data_root = '/nowhere'
    with pytest.raises(FileNotFoundError, match="data_root '/nowhere' is not a folder"):
        prepare_neighbours(cfg, progress=False)


def test_tool_says_where_the_index_is(cfg, tmp_path, monkeypatch, capsys):
    cfg.dump(tmp_path / 'config.py')
    monkeypatch.setattr(sys, 'argv', [str(TOOL), str(tmp_path / 'config.py'), '--device', 'cpu', '--chunk-size', '2'])
    runpy.run_path(str(TOOL), run_name='__main__')
    written = next((tmp_path / 'neighbours').iterdir())
    assert f'neighbour index written to {written}' in capsys.readouterr().out
    assert NeighbourIndex.load(written).neighbours.shape == (9, 9)
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--if-missing'])
    runpy.run_path(str(TOOL), run_name='__main__')
    assert 'is up to date' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--cfg-options', 'model.backbone.seed=4'])
    with pytest.raises(SystemExit, match=r'(?s)is another index.*--force --cfg-options model.backbone.seed=4'):
        runpy.run_path(str(TOOL), run_name='__main__')


@pytest.mark.slow
def test_tool_runs_from_another_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOL), str(tmp_path / 'absent.py')], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert 'there is no config file' in done.stderr
