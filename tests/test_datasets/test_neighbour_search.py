from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from omh_mmseg.datasets.neighbours import search as neighbour_search
from omh_mmseg.datasets.neighbours.features import channel_masks, pooled_features
from omh_mmseg.datasets.neighbours.search import neighbour_blocks, search_memory


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that a few dozen items need many of them."""
    monkeypatch.setattr(neighbour_search, 'FIRST_COLUMNS', 4)
    monkeypatch.setattr(neighbour_search, 'TILE_COLUMNS', 12)
    monkeypatch.setattr(neighbour_search, 'GROUP', 4)
    monkeypatch.setattr(neighbour_search, 'FAISS_COLUMNS', 25)


def directions(items: int, channels: int = 16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(items, channels, generator=generator), dim=1)


def whole_index(features: torch.Tensor, num_neighbours: int = 30, chunk_size: int = 1024, **options) -> np.ndarray:
    return np.concatenate(list(neighbour_blocks(features, num_neighbours, chunk_size, **options)))


def brute_force(features: torch.Tensor, columns: int) -> np.ndarray:
    """The item itself, then by falling similarity; a stable sort puts the lower number first among ties."""
    similarity = (features.double() @ features.double().T).fill_diagonal_(torch.inf)
    return similarity.sort(dim=1, descending=True, stable=True).indices[:, :columns].numpy()


sizes = dict(items=st.integers(2, 90), columns=st.integers(2, 40), chunk=st.integers(1, 50), seed=st.integers(0, 999))


def test_equals_a_full_sort(small_tiles):
    @settings(max_examples=40, deadline=None)
    @given(**sizes)
    def check(items, columns, chunk, seed):
        features = directions(items, seed=seed)
        index = whole_index(features, columns, chunk)
        assert index.dtype == np.int32
        np.testing.assert_array_equal(index, brute_force(features, min(columns, items)))

    check()


def test_of_ties_the_lower_number_comes_first(small_tiles):
    @settings(max_examples=60, deadline=None)
    @given(**sizes, channels=st.integers(1, 4))
    def check(items, columns, chunk, seed, channels):
        # Whole numbers: the products are exact in float32 and few, so that most items are tied.
        generator = torch.Generator().manual_seed(seed)
        features = torch.randint(-1, 2, (items, channels), generator=generator).float()
        index = whole_index(features, columns, chunk)
        np.testing.assert_array_equal(index, brute_force(features, min(columns, items)))

    check()


@pytest.mark.parametrize('order', ['rising', 'falling', 'shuffled'])
def test_tiles_of_the_real_size(order):
    turn = torch.linspace(0, 1, 9000)  # on a part of a circle, neighbours in number are neighbours in direction
    if order == 'falling':
        turn = turn.flip(0)
    if order == 'shuffled':
        turn = turn[torch.randperm(9000, generator=torch.Generator().manual_seed(0))]
    features = torch.stack((turn.double().cos(), turn.double().sin()), 1)
    codes = torch.randint(-8, 9, (9000, 6), generator=torch.Generator().manual_seed(1)).float()
    for items in (features.float(), codes):
        rows = slice(4000, 4100)
        block = next(neighbour_blocks(items, 12, 100, first_row=4000))
        similarity = items[rows] @ items.T
        similarity[torch.arange(100), torch.arange(4000, 4100)] = torch.inf
        best = similarity.gather(1, torch.from_numpy(block).long())
        torch.testing.assert_close(best, similarity.topk(12, dim=1).values, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(block, similarity.sort(dim=1, descending=True, stable=True).indices[:, :12].numpy())


@pytest.mark.parametrize('chunk', [1, 3, 100])
def test_item_itself_comes_first_among_duplicates(chunk):
    features = directions(1).repeat(12, 1)
    index = whole_index(features, 5, chunk)
    np.testing.assert_array_equal(index, brute_force(torch.zeros(12, 1), 5))


def test_blocks_can_begin_anywhere():
    features = directions(50)
    whole = whole_index(features, 6, 8)
    np.testing.assert_array_equal(np.concatenate(list(neighbour_blocks(features, 6, 8, first_row=24))), whole[24:])


@pytest.mark.parametrize('processes', [2, 3])
def test_processes_deal_out_the_blocks(processes):
    features = directions(50)
    parts = [list(neighbour_blocks(features, 5, 8, turn=(one, processes))) for one in range(processes)]
    in_turn = [parts[block % processes][block // processes] for block in range(7)]
    np.testing.assert_array_equal(np.concatenate(in_turn), whole_index(features, 5, 8))


def test_memory_is_bounded_by_the_tile(small_tiles, monkeypatch):
    largest = 0
    original = torch.cat

    def watch(tensors, dim=0):
        nonlocal largest
        result = original(tensors, dim=dim)
        largest = max(largest, result.numel())
        return result

    monkeypatch.setattr(neighbour_search.torch, 'cat', watch)
    whole_index(directions(1000), num_neighbours=5, chunk_size=10)
    assert 10 * 5 < largest <= 10 * (12 + 4)
    assert search_memory(10, 16) == 4 * (2 * 10 * 12 + (10 + 2 * 12) * 16)


def test_wrong_arguments(monkeypatch):
    with pytest.raises(ValueError, match='at least 2 items, got 1'):
        whole_index(directions(1))
    with pytest.raises(ValueError, match=r'features \(N, C\), got the shape \(3, 2, 2\)'):
        neighbour_blocks(torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match='num_neighbours must be at least 2'):
        whole_index(directions(4), num_neighbours=1)
    with pytest.raises(ValueError, match='chunk_size at least 1, got 30 and 0'):
        whole_index(directions(4), chunk_size=0)
    with pytest.raises(ValueError, match="search='annoy' is unknown; choose one of .'matmul', 'faiss'."):
        whole_index(directions(4), search='annoy')
    monkeypatch.setitem(sys.modules, 'faiss', None)
    with pytest.raises(ModuleNotFoundError, match='pip install faiss-cpu'):
        whole_index(directions(4), search='faiss')


def test_faiss_finds_the_same(small_tiles):
    pytest.importorskip('faiss')
    for items, columns in ((2, 5), (30, 40), (140, 9)):
        features = directions(items, seed=items)
        index = whole_index(features, columns, 17, search='faiss')
        np.testing.assert_array_equal(index, brute_force(features, min(columns, items)))
    tied = whole_index(directions(1).repeat(60, 1), 5, 17, search='faiss')
    assert all(len(set(row)) == 5 and row[0] == number for number, row in enumerate(tied.tolist()))


def test_pooled_features_are_the_normalised_mean():
    images = torch.rand(5, 3, 4, 6)
    backbone = nn.Conv2d(3, 7, 2, 2)
    features = torch.cat(list(pooled_features(backbone, images.split(2))))
    maps = backbone(images).detach()
    expected = maps.flatten(2).mean(2)
    torch.testing.assert_close(features, expected / expected.norm(dim=1, keepdim=True))
    assert not features.requires_grad


def test_train_mode_dropout_drops_whole_channels():
    images = torch.rand(6, 64, 4, 4) + 1
    masks = channel_masks(10, 6, 64, 0.25, seed=3)
    assert masks.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert 0.1 < (masks == 0).float().mean() < 0.4
    features = torch.cat(list(pooled_features(nn.Identity(), images.split(4), 10, 0.25, 3)))
    dropped = images * masks[:, :, None, None]
    torch.testing.assert_close(features, nn.functional.normalize(dropped.mean((2, 3)), dim=1))
    # The masks belong to items and seed, whatever the batches.
    torch.testing.assert_close(masks[4:], channel_masks(14, 2, 64, 0.25, seed=3), rtol=0, atol=0)
    assert not torch.equal(masks, channel_masks(10, 6, 64, 0.25, seed=4))
    assert not torch.equal(masks[0], masks[1])
    with pytest.raises(ValueError, match=r'must lie in \[0, 1\), got 1.0'):
        channel_masks(0, 1, 4, 1.0, 0)


def test_features_that_are_not_finite():
    images = torch.rand(4, 3, 2, 2)
    images[2, 0] = torch.nan
    with pytest.raises(ValueError, match='not finite, first for item 7'):
        list(pooled_features(nn.Identity(), images.split(1), first_item=5))
