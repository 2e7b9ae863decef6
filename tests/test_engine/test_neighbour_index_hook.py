from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from omh_mmseg.datasets.neighbours.index import NeighbourIndex
from omh_mmseg.datasets.neighbours.store import PartialIndex, partial_folder
from omh_mmseg.preparation import neighbours as module
from omh_mmseg.preparation.neighbours import IndexJob, complete_pairs
from omh_mmseg.registry import DATASETS, HOOKS, MODELS

ITEMS = 6


class Backbone(nn.Conv2d):
    def __init__(self, patch: int = 8) -> None:
        super().__init__(3, 4, patch, patch)
        torch.nn.init.normal_(self.weight, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.bias)


MODELS.register_module(name='HookTestBackbone', module=Backbone)


@pytest.fixture
def images(tmp_path) -> ConfigDict:
    init_default_scope('mmseg')
    generator = np.random.default_rng(0)
    for number in range(ITEMS):
        pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{number}.png')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    return dict(type='FolderSegDataset', data_root=str(tmp_path), num_classes=2, pipeline=pipeline)


@pytest.fixture
def make_runner(images, tmp_path) -> Callable[..., SimpleNamespace]:
    """The part of a runner that the hook looks at."""

    def make(index: str = 'index_{fingerprint}.npz', patch: int = 8, mean: float = 100.0) -> SimpleNamespace:
        pairs = dict(type='NeighbourPairs', dataset=images, index=str(tmp_path / 'made' / index), num_neighbours=2)
        lines: list[str] = []
        cfg = Config(
            dict(
                model=dict(
                    backbone=dict(type='HookTestBackbone', patch=patch),
                    data_preprocessor=dict(type='ViewsDataPreprocessor', mean=[mean] * 3, std=[50.0] * 3),
                ),
                train_dataloader=dict(batch_size=2, num_workers=0, dataset=pairs),
            )
        )
        model = nn.Module()
        model.backbone = MODELS.build(cfg.model.backbone)
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        return SimpleNamespace(
            model=model, cfg=cfg, logger=SimpleNamespace(info=lines.append), lines=lines,
            train_loop=SimpleNamespace(), train_dataloader=SimpleNamespace(dataset=dataset), pairs=dataset,
        )  # fmt: skip

    return make


def start(runner: SimpleNamespace, kind: str = 'NeighbourIndexHook', **options) -> Path:
    HOOKS.build(dict(type=kind, **options)).before_train(runner)
    return runner.pairs.index_path


def test_an_absent_index_is_made_on_first_use_and_found_later(make_runner):
    runner = make_runner()
    with pytest.raises(FileNotFoundError, match=r'(?s)there is no neighbour index .*prepare.py neighbours CONFIG'):
        start(runner, build=False)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    path = start(runner)
    assert torch.equal(torch.rand(3), expected)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    made = path.stat().st_mtime_ns
    assert start(make_runner(), build=False) == path and path.stat().st_mtime_ns == made
    assert runner.pairs[0]['data_samples'].neighbour_item in runner.pairs.neighbours[0, 1:3]
    # Configs of earlier versions name the hook so.
    assert start(make_runner(), 'NeighbourIndexCheckHook') == path


@pytest.mark.parametrize('change', [dict(patch=16), dict(mean=0.0)], ids=str)
def test_another_backbone_or_normalisation_makes_a_file_of_its_own(make_runner, change):
    first = start(make_runner())
    content = first.read_bytes()
    other = start(make_runner(**change))
    assert other != first and first.read_bytes() == content
    assert len(list(first.parent.iterdir())) == 2


def test_other_weights_make_a_file_of_their_own(make_runner):
    first, runner = start(make_runner()), make_runner()
    with torch.no_grad():
        runner.model.backbone.bias[0] += 1
    assert start(runner) != first


@pytest.mark.parametrize(
    ('change', 'part'), [(dict(patch=16), 'backbone: .* has .*8.0'), (dict(mean=0.0), 'normalisation: ')], ids=str
)
def test_at_a_fixed_path_the_index_of_another_model_is_refused(make_runner, change, part):
    path = start(make_runner('fixed.npz'))
    content = path.read_bytes()
    remedies = 'prepare.py neighbours CONFIG --force.*another `index` path.*{fingerprint}'
    with pytest.raises(ValueError, match=f'(?s)fixed.npz was made with another backbone:.*{part}.*{remedies}'):
        start(make_runner('fixed.npz', **change))
    assert path.read_bytes() == content


def test_config_file_of_the_run_is_named(make_runner, tmp_path):
    start(make_runner('fixed.npz'))
    runner = make_runner('fixed.npz', patch=16)
    path = tmp_path / 'mine.py'
    runner.cfg.dump(path)
    runner.cfg = Config.fromfile(path)
    with pytest.raises(ValueError, match=rf'prepare.py neighbours {path} --force\n.*the --cfg-options of this run'):
        start(runner)


def test_dropout_of_the_features_is_logged_and_accepted(make_runner):
    runner = make_runner()
    module.prepare_neighbours(runner.cfg, progress=False, train_mode_dropout=0.1, dropout_seed=5)
    path = start(runner)
    assert runner.lines == [f'the neighbour index {path} was made with channel dropout 0.1 of the features, seed 5']


def test_an_interrupted_build_leaves_no_index_and_is_continued(make_runner, monkeypatch):
    runner, original = make_runner(), module._complete_neighbours

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, '_complete_neighbours', interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(runner)
    folder = Path(runner.pairs.index).parent
    assert not list(folder.glob('*.npz'))
    (partial,) = folder.iterdir()
    assert json.loads((partial / 'manifest.json').read_text())['features'] == [ITEMS, 4]
    monkeypatch.setattr(module, '_complete_neighbours', original)
    path = start(runner)
    assert [each.name for each in folder.iterdir()] == [path.name]


def test_a_second_process_waits_for_the_one_that_makes_the_index(make_runner, monkeypatch):
    monkeypatch.setattr(module, 'WAIT_SECONDS', 0.05)
    runner = make_runner()
    job = IndexJob(runner.cfg, pairs=runner.pairs, backbone=runner.model.backbone)
    holder = PartialIndex(job.path, job.fingerprint, job.items)
    holder.__enter__()
    waiting = threading.Thread(target=start, args=(runner,))
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive() and not job.path.exists()
    holder.__exit__()
    waiting.join(20)
    assert runner.pairs.index_path == job.path and not partial_folder(job.path).exists()


def _complete(runner: SimpleNamespace, barrier: multiprocessing.Barrier) -> None:
    torch.set_num_threads(1)
    count, original = Path(runner.pairs.index).parent / 'builds', module._complete_neighbours

    def counted(*arguments: object) -> object:
        with open(count, 'a') as file:
            file.write('x')
        time.sleep(0.3)
        return original(*arguments)

    module._complete_neighbours = counted
    module.WAIT_SECONDS = 0.02
    barrier.wait()
    complete_pairs(runner.pairs, runner.cfg, runner.model.backbone)


def test_of_three_processes_one_makes_the_index(make_runner):
    context = multiprocessing.get_context('fork')
    runner, barrier = make_runner(), context.Barrier(3)
    runner.logger = None
    Path(runner.pairs.index).parent.mkdir()
    processes = [context.Process(target=_complete, args=(runner, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    folder = Path(runner.pairs.index).parent
    assert (folder / 'builds').read_text() == 'x'
    (path,) = folder.glob('index_*')
    assert NeighbourIndex.load(path).neighbours.shape == (ITEMS, ITEMS)


def test_data_sets_without_pairs_pass(make_runner):
    runner = make_runner()
    runner.train_dataloader.dataset = runner.pairs.dataset
    runner.cfg = ConfigDict(model=dict())
    assert start(runner) is None
