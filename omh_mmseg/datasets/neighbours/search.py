"""Exact nearest neighbours by dot product, in blocks: the memory does not grow with the number of items.

Rule for ties: of items with the same computed similarity, the lower number comes first. Two float32 products of the
same vectors can differ in the last digit from one block shape or library to another; the rule is about what comes out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from omh_mmseg.choices import SEARCHES

TILE_COLUMNS = 8192
FIRST_COLUMNS = 512
GROUP = 64
FAISS_COLUMNS = 65536


class Rows(Protocol):
    """What is searched: a tensor, or a file of rows that is read block by block."""

    @property
    def shape(self) -> Any:
        """(N, C)."""

    def __getitem__(self, rows: slice) -> Any:
        """A block of consecutive rows as tensor or array."""


def neighbour_blocks(
    features: Rows,
    num_neighbours: int = 30,
    chunk_size: int = 1024,
    device: str | torch.device = 'cpu',
    search: str = 'matmul',
    first_row: int = 0,
    turn: tuple[int, int] = (0, 1),
) -> Iterator[np.ndarray]:
    """Exact nearest neighbours, ``chunk_size`` rows of the index at a time.

    ``'matmul'`` holds the similarities of ``chunk_size`` x 8192 pairs (32 MB at the default) and, of these, looks only
    at the groups of 64 whose maximum beats the worst neighbour found so far; on random order that is about one group
    per row, so that hardly anything but the product costs time. ``'faiss'`` searches with a flat index of 65,536 items
    at a time; among items that are tied for the last column it may choose others than the lowest numbers.

    Args:
        features: (N, C), L2-normalised, N >= 2.
        num_neighbours: Columns of the index, the item itself included.
        chunk_size: Rows per block; a larger one reads the features less often.
        device: Where to multiply; ``'faiss'`` runs on the CPU.
        search: ``'matmul'``, or ``'faiss'`` where that library is installed.
        first_row: Where to begin.
        turn: Of so many processes that deal out the blocks in turn, the number of this one and their number.

    Returns:
        Blocks int32 (R, min(num_neighbours, N)) of consecutive rows: column 0 is the item itself, also where others
        have the same feature; then the others by falling similarity, tied ones by rising number.

    Raises:
        ValueError: Fewer than two items, sizes that are not positive, or an unknown search.
        ModuleNotFoundError: faiss is not installed.
    """
    shape = tuple(features.shape)
    if len(shape) != 2:
        raise ValueError(f'neighbours need features (N, C), got the shape {shape}')
    check_arguments(search, shape[0], num_neighbours, chunk_size)
    others = min(num_neighbours, shape[0]) - 1
    if search == 'faiss':
        find: Callable[[int, int], Tensor] = _FaissSearch(features, others)
    else:
        find = _MatmulSearch(features, others, min(chunk_size, shape[0]), torch.device(device))

    def blocks() -> Iterator[np.ndarray]:
        for start in range(first_row, shape[0], chunk_size)[turn[0] :: turn[1]]:
            stop = min(start + chunk_size, shape[0])
            items = np.arange(start, stop, dtype=np.int32)[:, None]
            yield np.concatenate((items, find(start, stop).cpu().numpy().astype(np.int32)), axis=1)

    return blocks()


def search_memory(chunk_size: int, channels: int) -> int:
    """Bytes that ``'matmul'`` needs beside the features, whatever their number.

    Args:
        chunk_size: Rows per block.
        channels: C.

    Returns:
        Similarities of one tile, as much again for the neighbours found in it, and the two blocks of features.
    """
    return 4 * (2 * chunk_size * TILE_COLUMNS + (chunk_size + 2 * TILE_COLUMNS) * channels)


def check_arguments(search: str, items: int, num_neighbours: int, chunk_size: int) -> None:
    """Raise what :func:`neighbour_blocks` would, before any work."""
    if search not in SEARCHES:
        raise ValueError(f'search={search!r} is unknown; choose one of {SEARCHES}')
    if items < 2:
        raise ValueError(f'neighbours need at least 2 items, got {items}')
    if num_neighbours < 2 or chunk_size < 1:
        raise ValueError(
            f'num_neighbours must be at least 2 (the item itself counts) and chunk_size at least 1, got '
            f'{num_neighbours} and {chunk_size}'
        )
    if search == 'faiss':
        _faiss()


class _MatmulSearch:
    """Rows ``start .. stop - 1`` against everything, tile by tile, with a running threshold per row."""

    def __init__(self, features: Rows, others: int, rows: int, device: torch.device) -> None:
        self.features, self.others, self.device = features, others, device
        self.tile = torch.empty(rows * TILE_COLUMNS, device=device)

    @torch.no_grad()
    def __call__(self, start: int, stop: int) -> Tensor:
        items = self.features.shape[0]
        queries = self._block(start, stop)
        best = queries.new_full((stop - start, self.others), -torch.inf)
        numbers = torch.full((stop - start, self.others), -1, device=self.device)
        left, width = 0, FIRST_COLUMNS
        while left < items:
            right = min(left + width, items)
            similarity = self._similarity(queries, left, right)
            queried = torch.arange(max(start, left), max(start, left, min(stop, right)), device=self.device)
            similarity[queried - start, queried - left] = -torch.inf
            rows, columns, values = _above(similarity, best[:, -1])
            if len(rows):
                best, numbers = _merge(best, numbers, rows, columns + left, values)
            # As long as the width doubles, a tile holds about as many new neighbours as there are columns to fill.
            left, width = right, min(right, TILE_COLUMNS)
        return numbers

    def _block(self, start: int, stop: int) -> Tensor:
        return torch.as_tensor(self.features[start:stop], dtype=torch.float32).to(self.device)

    def _similarity(self, queries: Tensor, left: int, right: int) -> Tensor:
        """(R, right - left rounded up to whole groups), filled up with -inf."""
        width = -(-(right - left) // GROUP) * GROUP
        tile = self.tile[: len(queries) * width].view(len(queries), width)
        torch.mm(queries, self._block(left, right).T, out=tile[:, : right - left])
        tile[:, right - left :] = -torch.inf
        return tile


def _above(similarity: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of all entries above their row's threshold, ordered by row, then column."""
    groups = similarity.view(len(similarity), -1, GROUP)
    row, group = (groups.amax(2) > threshold[:, None]).nonzero(as_tuple=True)
    values = groups[row, group]  # (hits, GROUP)
    hit, inside = (values > threshold[row, None]).nonzero(as_tuple=True)
    return row[hit], group[hit] * GROUP + inside, values[hit, inside]


def _merge(best: Tensor, numbers: Tensor, rows: Tensor, items: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The best of the neighbours so far and of further items, whose rows and similarities are given.

    ``items`` rises within a row and lies above all of ``numbers``, so that a stable sort keeps tied items in order.
    """
    counts = torch.bincount(rows, minlength=len(best))
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    most = int(counts.max())
    more = best.new_full((len(best), most), -torch.inf)
    more[rows, place] = values
    more_numbers = numbers.new_full((len(best), most), -1)
    more_numbers[rows, place] = items
    return _best_of(torch.cat((best, more), dim=1), torch.cat((numbers, more_numbers), dim=1), best.shape[1])


def _best_of(similarity: Tensor, numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    similarity, order = similarity.sort(dim=1, descending=True, stable=True)
    return similarity[:, :count].contiguous(), numbers.gather(1, order[:, :count])


class _FaissSearch:
    """The same with faiss's flat inner-product index, ``FAISS_COLUMNS`` items at a time."""

    def __init__(self, features: Rows, others: int) -> None:
        self.features, self.others = features, others
        self.index = _faiss().IndexFlatIP(features.shape[1])

    def __call__(self, start: int, stop: int) -> Tensor:
        items = self.features.shape[0]
        queries = self._block(start, stop)
        best = torch.full((stop - start, self.others), -torch.inf)
        numbers = torch.full((stop - start, self.others), -1)
        queried = torch.arange(start, stop)[:, None]
        for left in range(0, items, FAISS_COLUMNS):
            right = min(left + FAISS_COLUMNS, items)
            self.index.reset()
            self.index.add(self._block(left, right))
            similarity, nearest = map(torch.from_numpy, self.index.search(queries, min(self.others + 1, right - left)))
            nearest, order = (nearest + left).sort(dim=1)
            similarity = similarity.gather(1, order).masked_fill(nearest == queried, -torch.inf)
            best, numbers = _best_of(torch.cat((best, similarity), 1), torch.cat((numbers, nearest), 1), self.others)
        self.index.reset()
        return numbers

    def _block(self, start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(torch.as_tensor(self.features[start:stop]).cpu().numpy(), dtype=np.float32)


def _faiss() -> Any:
    try:
        return importlib.import_module('faiss')
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "search='faiss' needs the library faiss, which is not installed: pip install faiss-cpu. The default search "
            "'matmul' is exact as well and needs nothing"
        ) from error
