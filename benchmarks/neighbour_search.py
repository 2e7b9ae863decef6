"""Time and peak memory of the exact neighbour search on synthetic features.

    python benchmarks/neighbour_search.py

The features, clustered directions, lie in a file and are read block by block, as the index is made. Some row blocks
are searched and timed; the time for all rows is extrapolated from their median, which is fair because every block does
the same products. ``topk``, for comparison, selects among all similarities of every tile. The memory is the rise of the
resident memory of a fresh process over that before the search; the features on disk do not count to it, but every
block of them that is read does. The neighbours found are written to a file, too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import GIB, MIB, Benchmark, Question, Rows, Verdict, measure_apart, peak_rise

from omh_mmseg.datasets.neighbours.search import TILE_COLUMNS, neighbour_blocks
from omh_mmseg.datasets.neighbours.store import RowFile

CLUSTERS = 2000
SPREAD = 0.7
WRITTEN_ROWS = 10000
COMPARED_ROWS = 64
ROUNDING = 1e-6
REQUIRED_GIB = 2


def write_features(path: Path, items: int, channels: int) -> None:
    """Directions around random centres, in random order; the noise has ``SPREAD`` times a centre's length."""
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(CLUSTERS, channels, generator=generator), dim=1)
    file = RowFile(path, channels, '<f4')
    for first in range(0, items, WRITTEN_ROWS):
        rows = min(WRITTEN_ROWS, items - first)
        noise = SPREAD * torch.randn(rows, channels, generator=generator) / channels**0.5
        chosen = centres[torch.randint(CLUSTERS, (rows,), generator=generator)]
        file.append(F.normalize(chosen + noise, dim=1).numpy())
    file.close()


def topk_blocks(features: RowFile, neighbours: int, chunk_size: int) -> Iterator[np.ndarray]:
    """The search with ``topk`` of every tile."""
    for first in range(0, len(features), chunk_size):
        rows = torch.arange(first, min(first + chunk_size, len(features)))
        queries = torch.from_numpy(features[first : first + chunk_size])
        best = torch.empty(len(rows), 0)
        numbers = torch.empty(len(rows), 0, dtype=torch.long)
        for left in range(0, len(features), TILE_COLUMNS):
            similarity = queries @ torch.from_numpy(features[left : left + TILE_COLUMNS]).T
            columns = torch.arange(left, left + similarity.shape[1])
            similarity[rows[:, None] == columns] = torch.inf
            best = torch.cat((best, similarity), 1)
            numbers = torch.cat((numbers, columns.expand(len(rows), -1)), 1)
            best, order = best.topk(min(neighbours, best.shape[1]), 1)
            numbers = numbers.gather(1, order)
        yield numbers.numpy().astype(np.int32)


FORMS: dict[str, Callable[[RowFile, int, int], Iterator[np.ndarray]]] = dict(
    matmul=neighbour_blocks,
    topk=topk_blocks,
    faiss=lambda features, neighbours, chunk_size: neighbour_blocks(features, neighbours, chunk_size, search='faiss'),
)


def measure(path: str, case: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each block searched and the peak memory; to be called in a fresh process."""
    torch.set_num_threads(case['threads'])
    features = RowFile(Path(path), case['channels'], '<f4', case['items'])
    neighbours = RowFile(Path(f'{path}.{case["search"]}'), case['neighbours'], '<i4')
    seconds: list[float] = []

    def search() -> None:
        blocks = FORMS[case['search']](features, case['neighbours'], case['chunk_size'])
        for _ in range(case['blocks']):
            began = time.perf_counter()
            neighbours.append(next(blocks))
            seconds.append(time.perf_counter() - began)

    rise = peak_rise(search)
    found = neighbours[0:COMPARED_ROWS]
    taken = np.stack([[features[number : number + 1][0] for number in row] for row in found.tolist()])  # (R, k, C)
    similarity = np.einsum('rc,rkc->rk', features[0 : len(found)].astype(np.float64), taken.astype(np.float64))
    return dict(seconds=seconds, rss=rise, similarity=similarity.tolist())


def neighbour_search(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """All searches, each in a process of its own."""
    cases = [
        dict(
            items=args.items,
            channels=args.channels,
            neighbours=min(args.neighbours, args.items),
            search=search,
            chunk_size=chunk_size,
            blocks=min(args.repeats, -(-args.items // chunk_size)),
            threads=torch.get_num_threads(),
        )
        for chunk_size in args.chunk_sizes
        for search in ('matmul', *args.others)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'features.f32'
        print(f'writing {args.items} x {args.channels} features, then searching', file=sys.stderr)
        write_features(path, args.items, args.channels)
        results = measure_apart(args, [(str(path), case) for case in cases], hold=True)
    rows = [describe(case, result) for case, result in zip(cases, results)]
    # Not by number: of two neighbours that are equally similar up to rounding, one search may name the other first.
    compared = min(COMPARED_ROWS, *args.chunk_sizes, args.items)
    similarity = [np.asarray(result['similarity'])[:compared] for result in results]
    agree = all(np.allclose(other, similarity[0], rtol=0, atol=ROUNDING) for other in similarity)
    return rows, judge(rows, agree)


def describe(case: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """A row of the table."""
    items, chunk_size = case['items'], case['chunk_size']
    median = statistics.median(result['seconds'])
    return {key: value for key, value in case.items() if key != 'threads'} | dict(
        block_s=round(median, 3),
        extrapolated_minutes=round(median * -(-items // chunk_size) / 60, 2),
        gflop_per_s=round(2e-9 * items * case['channels'] * min(chunk_size, items) / median, 1),
        rss_mib=round(result['rss'] / MIB, 1),
    )


def judge(rows: Rows, agree: bool) -> list[Verdict]:
    """The requirement on memory, and that all searches find the same."""
    highest = max(row['rss_mib'] for row in rows if row['search'] == 'matmul')
    verdicts = [
        Verdict(
            f'the search among {rows[0]["items"]} x {rows[0]["channels"]} features takes at most {REQUIRED_GIB} GiB',
            f'{highest:.0f} MiB at the most, features on disk',
            highest < REQUIRED_GIB * GIB / MIB,
        )
    ]
    if len({row['search'] for row in rows}) > 1:
        verdicts.append(Verdict('all searches find neighbours of the same similarity', f'{len(rows)} searches', agree))
    return verdicts


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            neighbour_search,
            'Neighbour search; times of all rows are extrapolated',
            repeats=3,
            options=dict(items=500_000, channels=384, neighbours=30, chunk_sizes=[1024], others=['topk']),
            quick=dict(repeats=2, items=100_000),
            choices=dict(others=[form for form in FORMS if form != 'matmul']),
            apart=measure,
        )
    },
)

if __name__ == '__main__':
    main()
