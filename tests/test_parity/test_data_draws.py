"""What the data pipeline of the configs draws: every item once per pass, neighbours uniformly
(docs/methods/data.md 5.7, 8.7).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image
from scipy.stats import chi2_contingency, chisquare

from omh_mmseg.datasets.fingerprint import dataset_fingerprint
from omh_mmseg.datasets.neighbours.index import NeighbourIndex, write_index
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.files import replaced_when_complete

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
ITEMS, COLUMNS, NEIGHBOURS = 12, 10, 7
PIPELINE = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='PackSegInputs')]
LIKELY = 1e-3
"""Smallest probability of a draw that still counts as chance; the seeds are fixed, so a test does not flicker."""


@pytest.fixture
def pairs(tmp_path: Path) -> dict:
    """Config of pairs whose neighbour of rank r is item i + r."""
    folder = tmp_path / 'images' / 'train'
    folder.mkdir(parents=True)
    for item in range(ITEMS):
        Image.new('RGB', (16, 16), (20 * item, 0, 0)).save(folder / f'{item:02d}.png')
    data = dict(type='FolderSegDataset', data_root=str(tmp_path), split='train', num_classes=4, pipeline=PIPELINE)
    ring = (np.arange(ITEMS)[:, None] + np.arange(COLUMNS)).astype(np.int32) % ITEMS
    index = NeighbourIndex(ring, dataset_fingerprint(DATASETS.build(data)))
    with replaced_when_complete(tmp_path / 'index.npz') as file:
        write_index(file, index.neighbours, index.fingerprint)
    return dict(type='NeighbourPairs', index=str(tmp_path / 'index.npz'), num_neighbours=NEIGHBOURS, dataset=data)


@pytest.fixture
def ranks(pairs: dict) -> Callable[[int], np.ndarray]:
    """``ranks(passes)``: the rank drawn for each item, (passes, ITEMS)."""
    data = DATASETS.build(pairs)

    def draw(passes: int) -> np.ndarray:
        chosen = [[data[item]['data_samples'].neighbour_item for item in range(ITEMS)] for _ in range(passes)]
        return (np.array(chosen) - np.arange(ITEMS)) % ITEMS

    return draw


def test_every_stego_config_draws_from_the_seven_nearest():
    files = sorted(CONFIGS.glob('stego_vit-[sb]8_*.py'))
    assert files
    for file in files:
        assert Config.fromfile(str(file)).train_dataloader.dataset.num_neighbours == NEIGHBOURS, file.name


def test_ranks_are_uniform_over_one_to_seven(ranks):
    torch.manual_seed(0)
    drawn = ranks(100).ravel()
    assert set(drawn) == set(range(1, NEIGHBOURS + 1))
    assert chisquare(np.bincount(drawn)[1:]).pvalue > LIKELY


def test_ranks_depend_neither_on_the_item_nor_on_the_one_before(ranks):
    torch.manual_seed(1)
    drawn = ranks(100) - 1
    items = np.broadcast_to(np.arange(ITEMS), drawn.shape)
    for groups, values in ((items.ravel(), drawn.ravel()), (drawn.ravel()[:-1], drawn.ravel()[1:])):
        table = np.zeros((groups.max() + 1, NEIGHBOURS), int)
        np.add.at(table, (groups, values), 1)
        assert chi2_contingency(table).pvalue > LIKELY


def test_workers_draw_apart_and_anew_in_every_pass(pairs):
    """In the reference workers may share a random state that repeats every epoch (docs/methods/data.md 8.7); not here.
    """
    passes, batch = 12, 3
    settings = Config.fromfile(str(CONFIGS / 'stego_vit-s8_coco.py')).train_dataloader.to_dict()
    settings |= dict(dataset=pairs, batch_size=batch, num_workers=2)
    loader = iter(Runner.build_dataloader(settings, seed=0))
    anchors, ranks = [], []
    for _ in range(passes * ITEMS // batch):
        samples = next(loader)['data_samples']
        assert len(samples) == batch
        items = np.array([int(Path(sample.img_path).stem) for sample in samples])
        anchors.append(items)
        ranks.append((np.array([sample.neighbour_item for sample in samples]) - items) % ITEMS)
    by_pass = np.concatenate(anchors).reshape(passes, ITEMS)
    assert all(sorted(order) == list(range(ITEMS)) for order in by_pass)
    assert len({tuple(order) for order in by_pass}) == passes
    # Workers take turns, a batch each.
    of_workers = [np.concatenate(ranks[worker::2]) for worker in range(2)]
    assert (of_workers[0] == of_workers[1]).mean() < 0.4
    half = len(of_workers[0]) // 2
    assert all((drawn[:half] == drawn[half:]).mean() < 0.4 for drawn in of_workers)
    assert chisquare(np.bincount(np.concatenate(ranks))[1:]).pvalue > LIKELY
