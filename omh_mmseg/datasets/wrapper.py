"""Common behaviour of data set wrappers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from mmengine.dataset import BaseDataset

from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.checks import ranges


def datasets_in(dataset: Any) -> Iterator[Any]:
    """A built data set and all those inside it, mmengine's wrappers included; each wrapper before what it wraps."""
    yield dataset
    for inner in (getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or [])):
        if inner is not None:
            yield from datasets_in(inner)


def outside_cache(dataset: Any) -> tuple[list[Any], Any]:
    """The wrappers that put items together from several, outermost first, and the data set inside them."""
    wrappers = []
    while getattr(dataset, 'wraps_cache', False):
        wrappers.append(dataset)
        dataset = dataset.dataset
    return wrappers, dataset


class DatasetWrapper(ABC):
    """A data set around another one, with the interface that mmengine expects of wrappers.

    Args:
        dataset: The wrapped data set, built or as a config.
        lazy_init: Leave :meth:`full_init` to the first access.
    """

    wraps_cache: ClassVar[bool] = False
    """Whether items are put together from several, so that a feature cache goes inside."""
    extra_views: ClassVar[int] = 0
    """Images that an item has beside its own."""
    reads_images: bool = False
    """Whether an item takes images, also where the wrapped data set's come from a feature cache."""

    @ranges()
    def __init__(self, dataset: BaseDataset | DatasetWrapper | dict, lazy_init: bool = False) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        if not hasattr(dataset, 'get_data_info'):
            raise TypeError(f'dataset must be a config or a data set with get_data_info, got {type(dataset).__name__}')
        self.dataset: Any = dataset
        self._metainfo = dataset.metainfo
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """Classes and palette of the wrapped data set."""
        return copy.deepcopy(self._metainfo)

    @property
    def uses_wrapped_images(self) -> bool:
        """Whether the items are images of the wrapped data set; otherwise its list is never loaded."""
        return True

    def full_init(self) -> None:
        """Load the list of images, once."""
        if self._fully_initialized:
            return
        if self.uses_wrapped_images:
            self.dataset.full_init()
        self._metainfo = self.dataset.metainfo
        self._after_init()
        self._fully_initialized = True

    def _after_init(self) -> None:  # noqa: B027
        """What a subclass prepares once the wrapped data set is complete."""

    @abstractmethod
    def get_data_info(self, idx: int) -> dict:
        """The description of item ``idx`` before its pipeline."""

    @abstractmethod
    def __getitem__(self, idx: int) -> Any:
        """Item ``idx``."""

    def __len__(self) -> int:
        self.full_init()
        return len(self.dataset)

    def get_subset_(self, indices: Any) -> None:
        """Not supported: set ``indices`` of the wrapped data set instead."""
        raise NotImplementedError(f'{type(self).__name__} has no subsets; set `indices` of the wrapped data set')

    get_subset = get_subset_


def positive_index(idx: int, length: int) -> int:
    """``idx`` counted from the front; IndexError outside ``-length .. length - 1``."""
    if not -length <= idx < length:
        raise IndexError(f'index {idx} is outside a data set of {length} items')
    return idx % length
