"""Data set configs inside the wrappers that hold them (`NeighbourPairs`, `FiveCrop`, mmengine's `ConcatDataset`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def nested_datasets(dataset: Any, key: str = '') -> Iterator[tuple[str, dict]]:
    """A data set config and all those inside it, each wrapper before what it wraps.

    Args:
        dataset: Config of a data set; anything but a dict has none.
        key: Where it stands, ``'train_dataloader.dataset'``.

    Yields:
        The key of each, ``'train_dataloader.dataset.datasets.0'``, and the config itself.
    """
    if not isinstance(dataset, dict):
        return
    yield key, dataset
    inner = {'dataset': dataset.get('dataset')}
    inner |= {f'datasets.{index}': part for index, part in enumerate(dataset.get('datasets') or [])}
    for name, part in inner.items():
        yield from nested_datasets(part, f'{key}.{name}' if key else name)


def innermost_datasets(dataset: Any, key: str = '') -> dict[str, dict]:
    """The data set configs that wrap no other one, by their keys; see `nested_datasets`."""
    return {
        name: part for name, part in nested_datasets(dataset, key) if not (part.get('dataset') or part.get('datasets'))
    }


def find_dataset(dataset: Any, kind: str) -> dict | None:
    """The outermost data set config of a type, ``'FiveCrop'``, at or inside a config; None where there is none."""
    for _, part in nested_datasets(dataset):
        if str(part.get('type')).rpartition('.')[2] == kind:
            return part
    return None
