"""The data set wrapper that delivers cached features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from omh_mmseg.choices import FEATURE_DTYPES
from omh_mmseg.datasets.wrapper import DatasetWrapper, positive_index
from omh_mmseg.feature_cache.frozen_part import FEATURES, MIRRORED, VIEW
from omh_mmseg.feature_cache.items import unpacked
from omh_mmseg.feature_cache.store import DamagedItemError, FieldFile
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.frozen_inputs import FrozenItem
from omh_mmseg.utils.checks import ranges

SAMPLE = 'sample'
DTYPES = {name: getattr(torch, name) for name in FEATURE_DTYPES}


@DATASETS.register_module()
class CachedFeatures(DatasetWrapper):
    """A data set whose items hold cached features in place of images, as `FrozenItem`.

    `FeatureCacheHook` puts it around the data set of a run. Nothing is decoded, unless the images are needed as well:
    then the wrapped pipeline makes image, label and metadata as ever, and the features come with them.

    Where there are jittered views, each access draws one of them from torch's generator, which `SeededInfiniteSampler`
    lets follow from the run's seed.

    Args:
        dataset: The wrapped data set, built.
        fields: Files by the attribute of `FrozenItem` that they hold or the name of an extra, ``'view1'``, ``'view2'``,
            ... for the views, and ``'sample'``. All items are complete.
        dtypes: Types of the values, likewise.
        images: Whether the images are needed as well; ``'sample'`` is then not.

    Raises:
        DamagedItemError: At the access, where an item has been damaged since.
    """

    @ranges()
    def __init__(
        self, dataset: Any, fields: Mapping[str, FieldFile], dtypes: Mapping[str, torch.dtype], images: bool = False
    ) -> None:
        self.fields, self.dtypes, self.images = dict(fields), dict(dtypes), images
        self.views = [name for name in self.fields if name.startswith(VIEW)]
        super().__init__(dataset)

    def get_data_info(self, idx: int) -> dict:
        """Description of the item before its pipeline."""
        return self.dataset.get_data_info(idx)

    def __getitem__(self, idx: int) -> dict:
        idx = positive_index(idx, len(self))
        if self.images:
            item = self.dataset[idx]
            size = (item['inputs'].shape[-2], item['inputs'].shape[-1])
        else:
            sample, size = unpacked(self.fields[SAMPLE].get(idx)[0], self.dataset.get_data_info(idx))
            item = dict(inputs=None, data_samples=sample)
        values = {name: self.value(name, idx) for name in self.fields if name != SAMPLE and name not in self.views}
        if self.views:
            values[VIEW] = self.value(self.views[int(torch.randint(len(self.views), ()))], idx)
        own = {name: values.pop(name, None) for name in (FEATURES, MIRRORED, VIEW)}
        return dict(item, inputs=FrozenItem(size=size, image=item['inputs'], extras=values, **own))

    def value(self, name: str, idx: int) -> Tensor:
        """Features, say, of an item, in the type that they are stored in."""
        content, shape = self.fields[name].get(idx)
        if content.numel() != math.prod(shape) * self.dtypes[name].itemsize:
            raise DamagedItemError(
                f'item {idx} of {name} in {self.fields[name].folder} has {content.numel()} bytes, and they are no '
                f'{self.dtypes[name]} of the shape {shape}: delete the folder'
            )
        return content.view(self.dtypes[name]).view(shape)

    def __getattr__(self, name: str) -> Any:
        # What tools look for on a data set, such as METAINFO, is there still.
        if name.startswith('__') or 'dataset' not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(sorted(self.fields))}, images={self.images})'
