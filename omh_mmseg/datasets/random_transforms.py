"""Which transforms of a pipeline draw at random."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from omh_mmseg.datasets.wrapper import datasets_in

RANDOM_NAMES = ('Random', 'PhotoMetric', 'AutoAugment', 'TrivialAugment', 'AugMix', 'MixUp', 'Mosaic', 'GenerateEdge')


def transforms_of(dataset: Any) -> list[Any]:
    """All transforms of a data set and of those inside it."""
    pipelines = (getattr(one, 'pipeline', None) for one in datasets_in(dataset))
    return [transform for pipeline in pipelines for transform in getattr(pipeline, 'transforms', [])]


def random_transforms(transforms: Sequence[Any]) -> list[str]:
    """Names of transforms, also of nested ones, that are known to draw at random."""
    names = []
    for transform in nested(transforms):
        name = type(transform).__name__
        if name.startswith(RANDOM_NAMES) and name not in names:
            names.append(name)
    return names


def nested(value: Any, depth: int = 4) -> Iterator[Any]:
    """What a value holds in lists, tuples and attributes that can be called, itself included."""
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from nested(one, depth)
    elif depth and hasattr(value, '__dict__') and not inspect.ismodule(value) and not inspect.isclass(value):
        yield value
        for one in vars(value).values():
            if isinstance(one, (list, tuple)) or callable(one):
                yield from nested(one, depth - 1)
