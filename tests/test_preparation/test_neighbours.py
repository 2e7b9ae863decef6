from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from omh_mmseg.datasets.neighbours.index import NeighbourIndex
from omh_mmseg.datasets.neighbours.store import PartialIndex, RowFile
from omh_mmseg.preparation import neighbours as module
from omh_mmseg.preparation.neighbours import describe_neighbours, prepare_neighbours
from omh_mmseg.registry import DATASETS, MODELS
from omh_mmseg.utils.config import find_pairs_config

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = REPOSITORY / 'tools' / 'prepare.py'


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
    assert pairs.index_path is None and pairs[0] and pairs.index_path == path
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


CHANGES = [
    ({'model.backbone.stride': 2}, 'backbone: the index has'),
    ({'model.backbone.seed': 1}, 'weights: the index has'),
    ({'model.data_preprocessor.mean': [0.0] * 3}, 'normalisation: the index has'),
]


@pytest.mark.parametrize('change', [change for change, _ in CHANGES], ids=str)
def test_another_model_has_its_own_file(cfg, change):
    path, _ = prepare_neighbours(cfg, progress=False)
    content = path.read_bytes()
    cfg.merge_from_dict(change)
    other, made = prepare_neighbours(cfg, progress=False)
    assert made and other != path and path.read_bytes() == content
    assert prepare_neighbours(cfg, progress=False, force=True)[0] == other and path.read_bytes() == content


@pytest.mark.parametrize(('change', 'part'), CHANGES, ids=str)
def test_at_a_fixed_path_another_models_index_is_not_overwritten(cfg, change, part, tmp_path):
    cfg.train_dataloader.dataset.index = str(tmp_path / 'fixed.npz')
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


class Interrupting:
    """Raise KeyboardInterrupt at the n-th of the calls that it counts."""

    def __init__(self, monkeypatch, at: int, *targets: tuple[object, str]) -> None:
        self.calls, self.at = 0, at
        for owner, name in targets:
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, function):  # noqa: ANN001, ANN201
        def call(*arguments, **options):  # noqa: ANN002, ANN003, ANN202
            self.calls += 1
            if self.calls == self.at:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call


POINTS = ((RowFile, 'append'), (PartialIndex, 'remove'), (module, 'write_index'), (os, 'replace'))


@pytest.mark.slow
def test_interrupted_anywhere_the_next_run_ends_with_the_same_index(cfg):
    arguments = dict(chunk_size=3, progress=False, train_mode_dropout=0.1, dropout_seed=2)
    path, _ = prepare_neighbours(cfg, **arguments)
    with np.load(path) as arrays:
        expected = {name: arrays[name] for name in arrays.files}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    points = 0
    while True:
        path.unlink(missing_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            Interrupting(patch, points + 1, *POINTS)
            try:
                prepare_neighbours(cfg, **arguments)
                break
            except KeyboardInterrupt:
                points += 1
        complete = path.exists()  # only while the work folder was being deleted
        assert prepare_neighbours(cfg, **arguments) == (path, not complete)
        with np.load(path) as arrays:
            for name, value in expected.items():
                np.testing.assert_array_equal(arrays[name], value)
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert points > 10


def test_an_interrupted_run_is_continued_not_repeated(cfg, monkeypatch, caplog):
    interrupted = Interrupting(monkeypatch, 3, (RowFile, 'append'))
    with pytest.raises(KeyboardInterrupt):
        prepare_neighbours(cfg, chunk_size=2, progress=False)
    assert 'features of 8 items and the neighbours of 0' in describe_neighbours(cfg, chunk_size=2)
    interrupted.at, interrupted.calls = 4, 0
    with pytest.raises(KeyboardInterrupt):
        prepare_neighbours(cfg, chunk_size=2, progress=False)
    assert 'features of 9 items and the neighbours of 4' in describe_neighbours(cfg, chunk_size=2)
    interrupted.calls = -100
    path, _ = prepare_neighbours(cfg, chunk_size=2, progress=False)
    assert interrupted.calls == -100 + 3  # rows 4..5, 6..7, 8


def test_another_search_keeps_the_features(cfg, monkeypatch):
    interrupted = Interrupting(monkeypatch, 5, (RowFile, 'append'))
    with pytest.raises(KeyboardInterrupt):
        prepare_neighbours(cfg, chunk_size=2, progress=False)
    interrupted.calls = -100
    prepare_neighbours(cfg, chunk_size=5, progress=False)
    assert interrupted.calls == -100 + 2


def test_the_rest_of_another_run_is_not_used(cfg, tmp_path, monkeypatch):
    cfg.train_dataloader.dataset.index = str(tmp_path / 'plain.npz')
    expected, _ = prepare_neighbours(cfg, progress=False)
    content = NeighbourIndex.load(expected).neighbours
    cfg.train_dataloader.dataset.index = str(tmp_path / 'index.npz')
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Interrupting(patch, 3, (RowFile, 'append'))
        prepare_neighbours(cfg, progress=False, train_mode_dropout=0.5)
    warnings = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', warnings.append)
    path, _ = prepare_neighbours(cfg, progress=False)
    assert 'begun anew: it was made from other images, weights or settings' in warnings[0]
    np.testing.assert_array_equal(NeighbourIndex.load(path).neighbours, content)


def test_dropout_makes_another_index_that_is_told_apart(cfg):
    path, _ = prepare_neighbours(cfg, progress=False, train_mode_dropout=0.4)
    index = NeighbourIndex.load(path)
    assert index.fingerprint['train_mode_dropout'] == dict(probability=0.4, seed=0)
    assert prepare_neighbours(cfg, progress=False, train_mode_dropout=0.4) == (path, False)
    assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 9
    with pytest.raises(FileExistsError, match='train_mode_dropout: the index has .*0.4.*, this run has None'):
        prepare_neighbours(cfg, progress=False)
    with pytest.raises(FileExistsError, match='--force --train-mode-dropout 0.4 --dropout-seed 1'):
        prepare_neighbours(cfg, progress=False, train_mode_dropout=0.4, dropout_seed=1)
    prepare_neighbours(cfg, progress=False, force=True)
    assert not np.array_equal(NeighbourIndex.load(path).neighbours, index.neighbours)
    with pytest.raises(ValueError, match=r'train_mode_dropout must lie in \[0, 1\), got 1.5'):
        prepare_neighbours(cfg, progress=False, train_mode_dropout=1.5)


def test_too_small_disk(cfg, monkeypatch):
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match='for 9 features of 3 channels, only 0.00 GiB are free'):
        prepare_neighbours(cfg, progress=False)


def test_two_processes_do_not_make_one_index(cfg, monkeypatch):

    def second(*_, **__):
        prepare_neighbours(cfg, progress=False)

    monkeypatch.setattr(module, '_complete_neighbours', second)
    with pytest.raises(BlockingIOError, match='another process is making this neighbour index'):
        prepare_neighbours(cfg, progress=False)


def test_description_changes_nothing(cfg, tmp_path):
    text = describe_neighbours(cfg, chunk_size=64)
    assert ': absent\n9 items, 9 columns, disk space unknown' in text
    assert not (tmp_path / 'neighbours').exists()
    path, _ = prepare_neighbours(cfg, progress=False)
    assert f'{path}: there and valid' in describe_neighbours(cfg)
    cfg.train_dataloader.dataset.index = str(path)
    cfg.model.backbone.seed = 4
    assert 'another one:\n  backbone: the index has' in describe_neighbours(cfg)


def test_wrong_configs(cfg):
    with pytest.raises(ValueError, match='this config needs no neighbour index'):
        find_pairs_config(Config(dict(train_dataloader=cfg.train_dataloader.dataset)))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' is not available here .*; use cpu"):
            prepare_neighbours(cfg, device='cuda')
    cfg.train_dataloader.dataset.dataset.data_root = '/nowhere'
    with pytest.raises(FileNotFoundError, match="data_root '/nowhere' is not a folder"):
        prepare_neighbours(cfg, progress=False)


def test_tool_says_where_the_index_is(cfg, tmp_path, monkeypatch, capsys):
    cfg.dump(tmp_path / 'config.py')
    words = ['neighbours', str(tmp_path / 'config.py'), '--device', 'cpu', '--chunk-size', '2']
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *words])
    runpy.run_path(str(TOOL), run_name='__main__')
    written = next((tmp_path / 'neighbours').iterdir())
    assert f'neighbour index written to {written}' in capsys.readouterr().out
    assert NeighbourIndex.load(written).neighbours.shape == (9, 9)
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--if-missing'])
    runpy.run_path(str(TOOL), run_name='__main__')
    assert 'is up to date' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [*sys.argv[:5], '--dry-run'])
    runpy.run_path(str(TOOL), run_name='__main__')
    assert 'there and valid\n9 items, 9 columns' in capsys.readouterr().out
    options = ['--cfg-options', 'model.backbone.seed=4', f'train_dataloader.dataset.index={written}']
    monkeypatch.setattr(sys, 'argv', [*sys.argv[:5], *options])
    with pytest.raises(SystemExit, match=r'(?s)is another index.*--force --cfg-options model.backbone.seed=4'):
        runpy.run_path(str(TOOL), run_name='__main__')


@pytest.mark.slow
def test_tool_runs_from_another_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOL), 'neighbours', str(tmp_path / 'absent.py')], cwd=tmp_path, capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert 'there is no config file' in done.stderr
