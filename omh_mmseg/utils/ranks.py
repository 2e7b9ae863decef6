"""Work that the processes of a launcher share, outside a runner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from mmengine import dist
from mmengine.utils.dl_utils import set_multi_processing

from omh_mmseg.launchers import present_launcher

T = TypeVar('T')


def join_launcher(launcher: str | None = None) -> bool:
    """Become one of the processes that a launcher has started, which talk over gloo on processors, GPUs or not.

    Args:
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``; None for the one that started this process.

    Returns:
        Whether there is a launcher.

    Raises:
        ValueError: The launcher's variables are missing.
    """
    launcher = launcher or present_launcher()
    if launcher == 'none':
        return False
    set_multi_processing(distributed=True)
    dist.init_dist(launcher, backend='gloo')
    return True


def from_first(decide: Callable[[], T]) -> T:
    """Call a function on rank 0 alone; its result, or its exception, is that of all ranks."""
    outcome: list[Any] = [None, None]
    if dist.is_main_process():
        try:
            outcome[0] = decide()
        except Exception as error:
            if dist.get_world_size() == 1:
                raise
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def on_first(parts: Iterator[T], count: int) -> Iterator[T]:
    """Parts that were dealt out in turn, in their order on rank 0, and none on the others, which call this as well.

    Args:
        parts: Those of this rank: of number rank, rank + world size, ...
        count: Of all ranks together.
    """
    rank, ranks = dist.get_dist_info()
    for first in range(0, count, ranks):
        part = next(parts) if first + rank < count else None
        if ranks == 1:
            yield part  # type: ignore[misc]
            continue
        held: list[Any] | None = [None] * ranks if rank == 0 else None
        torch.distributed.gather_object(part, held)
        if held is not None:
            yield from held[: count - first]


def in_turn(parts: Iterable[T]) -> Iterator[T]:
    """Parts of this rank, each given out when its turn comes: rank 0, then rank 1, and so on, round by round.

    What is done with parts that were dealt out in turn is so done in their order over all ranks.
    """
    rank, ranks = dist.get_dist_info()
    if ranks == 1:
        yield from parts
        return
    mine = iter(parts)
    while True:
        part = next(mine, None)
        if not any(dist.all_gather_object(part is not None)):
            return
        for turn in range(ranks):
            if turn == rank and part is not None:
                yield part
            dist.barrier()
