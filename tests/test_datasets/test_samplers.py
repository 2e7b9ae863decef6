"""What a training loads, draws included, follows from the seed: not from workers, a resume or the process."""

from __future__ import annotations

import itertools
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from torch.utils.data import BatchSampler

from omh_mmseg.datasets.samplers import SeededIndex, SeededInfiniteSampler
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.generators import seed_generators, seeded

RANDOM = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='RandomResize', scale=(60, 40), ratio_range=(0.9, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(32, 32), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
BATCHES = 5


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture
def loader(folder) -> Callable[..., Any]:
    """``loader('repeat', workers=2)``: an iterator over batches of ten small pictures, in one of the wrappers."""
    root = folder(count=10)
    data = dict(type='FolderSegDataset', data_root=str(root), split='train', num_classes=4, pipeline=RANDOM)
    crops = [*RANDOM[:2], dict(type='FiveCropPatch'), dict(RANDOM[2], scale=(120, 80)), *RANDOM[3:]]
    wrapped = dict(
        plain=data,
        repeat=dict(type='RepeatDataset', times=3, dataset=data),
        concat=dict(type='ConcatDataset', datasets=[data, data]),
        five_crop=dict(type='FiveCrop', dataset=dict(data, pipeline=crops)),
    )

    def build(wrapper: str = 'plain', workers: int = 0, seed: int = 5, skip: int = 0, **options: Any) -> Any:
        config = dict(
            batch_size=3, num_workers=workers, dataset=wrapped[wrapper], sampler=dict(type='SeededInfiniteSampler')
        )
        built = Runner.build_dataloader(config | options, seed=seed)
        if skip:
            built.sampler.indices = itertools.islice(built.sampler._indices_of_rank(), skip * 3, None)
        return iter(built)

    return build


def batches(iterator: Any, count: int = BATCHES) -> list[tuple]:
    loaded = [next(iterator) for _ in range(count)]
    return [
        (sample.img_path, image.numpy().tobytes(), sample.flip)
        for batch in loaded
        for image, sample in zip(batch['inputs'], batch['data_samples'])
    ]


@pytest.mark.parametrize('wrapper', ['plain', 'repeat', 'concat', 'five_crop'])
def test_any_number_of_workers_loads_the_same(loader, wrapper) -> None:
    alone = batches(loader(wrapper))
    torch.manual_seed(9), np.random.seed(9), random.seed(9)
    assert batches(loader(wrapper, workers=2)) == alone == batches(loader(wrapper))
    assert len(set(alone)) == len(alone)
    assert batches(loader(wrapper, seed=6)) != alone


def test_a_batch_sampler_may_stand_between(loader) -> None:
    between = dict(batch_sampler=dict(type=BatchSampler, drop_last=True))
    assert batches(loader(workers=2, **between)) == batches(loader())


def test_a_resume_goes_on_where_it_was(loader) -> None:
    whole = batches(loader())
    assert batches(loader(workers=2, skip=3), BATCHES - 3) == whole[9:]


def test_the_same_item_is_drawn_anew_in_each_pass(loader) -> None:
    seen: dict[str, set[bytes]] = {}
    for path, image, _ in batches(loader(), 20):
        seen.setdefault(path, set()).add(image)
    assert len(seen) == 10 and all(len(images) == 6 for images in seen.values())


def test_ranks_load_apart(folder, monkeypatch) -> None:
    data = DATASETS.build(
        dict(type='FolderSegDataset', data_root=str(folder(count=4)), split='train', num_classes=4, pipeline=RANDOM)
    )
    keys = []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        keys.append([index.key for index in itertools.islice(SeededInfiniteSampler(data, seed=1), 4)])
    assert not set(keys[0]) & set(keys[1])


def test_loading_leaves_no_trace_in_this_process(loader) -> None:
    data = loader()._dataset
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    data.__getitems__([SeededIndex(2, ('item', 1, 0, 0))])
    assert (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()) == expected
    with pytest.raises(IndexError):
        data.__getitems__([SeededIndex(99, ('item', 1, 0, 0))])
    with seeded('test'):
        assert np.random.rand() != expected[1][0]


def test_an_index_travels_to_workers() -> None:
    index = pickle.loads(pickle.dumps(SeededIndex(4, ('item', 1, 0, 7))))
    assert index == 4 and index.key == ('item', 1, 0, 7)
    assert SeededIndex(4).key == ()


def test_draws_of_different_purposes_and_numbers_differ() -> None:
    keys = [('a', 1), ('b', 1), ('a', 1, 0, 1), ('a', 1, 1), ('a', 2), ('a', 2**40)]
    drawn = []
    for key in keys:
        seed_generators(*key)
        drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))
    assert all(len(set(column)) == len(keys) for column in zip(*drawn))
    seed_generators('a', 1)
    assert (torch.rand(()).item(), np.random.rand(), random.random()) == drawn[0]


def test_every_config_of_the_library_loads_by_it() -> None:
    files = (Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets').glob('*.py')
    assert all("type='InfiniteSampler'" not in file.read_text() for file in files)
