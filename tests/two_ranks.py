"""Two processes that talk over gloo, forked from a test."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def _rank(function: Callable, rank: int, store: Path, results: Any) -> None:
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    results[rank] = function(rank)
    torch.distributed.destroy_process_group()


def on_two_ranks(function: Callable[[int], Any], folder: Path) -> list[Any]:
    fork = multiprocessing.get_context('fork')
    with fork.Manager() as manager:
        results = manager.dict()
        ranks = [fork.Process(target=_rank, args=(function, rank, folder / 'store', results)) for rank in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(60)
            assert process.exitcode == 0
        return [results[rank] for rank in range(2)]
