"""Which items of a cache this process makes, beside others that fill the same cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from omh_mmseg.feature_cache.store import FieldFile, ProcessLock


class Claims:
    """Blocks of items of which some are missing and which this process has claimed; a batch sampler of a loader.

    Args:
        files: The files of the cache, by field.
        items: N.
        batch_size: Items of a block.
        lock: Of the cache. Whoever has made a block releases it.
        turn: Of so many processes that deal out the blocks in turn, the number of this one and their number.

    Attributes:
        claimed: First and last + 1 item of the blocks that were given out, in their order.
    """

    def __init__(
        self,
        files: Mapping[str, FieldFile],
        items: int,
        batch_size: int,
        lock: ProcessLock,
        turn: tuple[int, int] = (0, 1),
    ) -> None:
        self.files, self.items, self.batch_size, self.lock, self.turn = files, items, batch_size, lock, turn
        self.claimed: deque[tuple[int, int]] = deque()

    def __iter__(self) -> Iterator[list[int]]:
        """Numbers of the items of each block."""
        for start in range(0, self.items, self.batch_size)[self.turn[0] :: self.turn[1]]:
            stop = min(start + self.batch_size, self.items)
            if self._complete(start, stop) or self._made_elsewhere(start, stop) or not self.lock.take(start, stop):
                continue
            # Another process may have made the block between the look and the claim.
            if self._made_elsewhere(start, stop):
                self.lock.release(start, stop)
                continue
            self.claimed.append((start, stop))
            yield list(range(start, stop))

    def _made_elsewhere(self, start: int, stop: int) -> bool:
        for file in self.files.values():
            file.reload(start, stop)
        return self._complete(start, stop)

    def _complete(self, start: int, stop: int) -> bool:
        return all(file.present(start, stop).all() for file in self.files.values())
