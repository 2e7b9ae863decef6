"""Items in an order, and with random draws, that follow from the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import DataLoader, Subset

from omh_mmseg.registry import DATA_SAMPLERS
from omh_mmseg.utils.checks import STEPS, ranges
from omh_mmseg.utils.generators import seeded


class SeededIndex(int):
    """Number of an item that says what the item's random draws are seeded by.

    Attributes:
        key: Arguments of `seeded`; empty for draws from whatever the generators hold.
    """

    key: tuple[Any, ...]

    def __new__(cls, item: int, key: tuple[Any, ...] = ()) -> SeededIndex:
        """An item's number with its key."""
        index = super().__new__(cls, item)
        index.key = key
        return index


class SeededItems:
    """Gives the items of a data set, each with draws of its own; torch's loaders call it in place of ``dataset[i]``.

    Whatever draws in there (transforms of any package, wrappers, a neighbour) draws from the global generators, which
    are seeded by the index and restored afterwards. So the items are the same in whichever process they are loaded.

    Args:
        dataset: The outermost one.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: Sequence[int]) -> list[Any]:
        """The items of a batch."""
        return [self._item(index) for index in indices]

    def _item(self, index: int) -> Any:
        key = getattr(index, 'key', ())
        if not key:
            return self.dataset[index]
        with seeded(*key):
            return self.dataset[int(index)]


def seed_items(dataset: Any) -> None:
    """Let loaders of a data set honour `SeededIndex`.

    An index loses what it carries in the arithmetic of mmengine's ``RepeatDataset`` and ``ConcatDataset``, so that the
    outermost data set has to be told: by ``__getitems__``, which torch offers data sets for reading a batch at once.
    """
    dataset.__getitems__ = SeededItems(dataset)


def seeded_loader(
    like: DataLoader,
    dataset: Any,
    indices: Sequence[SeededIndex],
    batch_size: int | None = None,
    num_workers: int | None = None,
    generator: torch.Generator | None = None,
) -> DataLoader:
    """A loader of some items in an order, each with draws of its own.

    Args:
        like: Loader whose way of loading is taken over.
        dataset: Of the items; it is told to honour the seeds, see `seed_items`.
        indices: The items.
        batch_size: In place of the other loader's.
        num_workers: Likewise.
        generator: What seeds the workers; None draws from the global generator.
    """
    seed_items(dataset)
    return DataLoader(
        Subset(dataset, indices),
        batch_size=batch_size or like.batch_size or 1,
        num_workers=like.num_workers if num_workers is None else num_workers,
        collate_fn=like.collate_fn,
        worker_init_fn=like.worker_init_fn,
        generator=generator,
    )


@DATA_SAMPLERS.register_module()
class SeededInfiniteSampler(InfiniteSampler):
    """mmengine's ``InfiniteSampler``, whose items are drawn from seed, rank and their place in the rank's sequence.

    Crops, flips, colours and neighbours are then the same with any number of workers and after a resume. mmengine seeds
    each worker once, so that draws depend on which worker has loaded what before.

    Args:
        dataset: The data set that is loaded; it is told to honour the seeds, see `seed_items`.
        shuffle: See mmengine.
        seed: See mmengine; the same on all ranks.
    """

    @ranges(seed=STEPS)
    def __init__(self, dataset: Any, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle, seed)
        seed_items(dataset)

    def restart(self, seed: int) -> None:
        """Begin the sequence of another seed."""
        self.seed = seed
        self.indices = self._indices_of_rank()

    def _indices_of_rank(self) -> Iterator[int]:
        for place, item in enumerate(super()._indices_of_rank()):
            yield SeededIndex(item, ('item', self.seed, self.rank, place))
