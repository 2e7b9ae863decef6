"""Pairs of an image and one of its nearest neighbours."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from torch import Tensor

from omh_mmseg.datasets.fingerprint import DATASET_PARTS, compare_fingerprints, dataset_fingerprint
from omh_mmseg.datasets.neighbours.index import COMMAND, PLACEHOLDER, NeighbourIndex, command_to_remake, find_index
from omh_mmseg.datasets.wrapper import DatasetWrapper, datasets_in, positive_index
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.checks import ranges
from omh_mmseg.utils.commands import suggested_command


class Views(dict):
    """Named views of one image.

    Tools that expect one image, such as mmseg's ``browse_dataset.py``, see the anchor: :meth:`permute` is its method.
    """

    def permute(self, *dims: int) -> Tensor:
        """``self['anchor'].permute(*dims)``."""
        return self['anchor'].permute(*dims)


@DATASETS.register_module()
class NeighbourPairs(DatasetWrapper):
    """Item i together with one of its nearest neighbours, drawn anew each time (docs/methods/data.md 5.7).

    Item i is ``dict(inputs=Views(anchor, neighbour), data_samples)`` with the anchor's data sample; its metainfo
    ``neighbour_item`` is the number of the item that was drawn. The neighbour is ``index[i, r]``, r uniform in
    ``1 .. num_neighbours``, from torch's generator, which `SeededInfiniteSampler` lets follow from the run's seed.

    The index belongs to one list of images and one pipeline, which is checked here, and to one backbone with its
    weights and normalisation. These are known to a training alone: its hook `NeighbourIndexHook` makes the index of its
    model where there is none, and hands it over (:meth:`use_index`). Programs without a model, such as mmseg's
    ``browse_dataset.py``, see the neighbours of any index of these images.

    Args:
        dataset: The wrapped data set, built or as a config.
        index: Path of the npz, which a training or ``tools/prepare.py neighbours`` makes; may contain
            ``{fingerprint}``, see :func:`omh_mmseg.datasets.neighbours.index.resolve_index_path`.
        num_neighbours: How many of the nearest neighbours to draw from, the item itself not counted.
        lazy_init: Leave :meth:`full_init` to the first access.

    Attributes:
        images: What the images are, from :func:`dataset_fingerprint`; set by :meth:`full_init`.
        index_path: The index file in use, ``{fingerprint}`` filled in; None before :meth:`use_index`.
        fingerprint: What that index was computed from.

    Raises:
        FileNotFoundError: With the first item, if there is no index; the message holds the command that makes it.
        ValueError: The index belongs to other images or another pipeline, or has too few columns.
    """

    wraps_cache = True
    extra_views = 1

    @ranges(num_neighbours='[1, 1000000]')
    def __init__(
        self,
        dataset: BaseDataset | DatasetWrapper | dict,
        index: str | Path,
        num_neighbours: int = 7,
        lazy_init: bool = False,
    ) -> None:
        self.index = index
        self.num_neighbours = num_neighbours
        self.neighbours: np.ndarray | None = None
        self.index_path: Path | None = None
        self.fingerprint: dict[str, Any]
        self.images: dict[str, Any]
        super().__init__(dataset, lazy_init)

    def _after_init(self) -> None:
        self.images = dataset_fingerprint(self.dataset)
        if PLACEHOLDER not in str(self.index) and Path(self.index).is_file():
            self.use_index(self.index)

    def use_index(self, path: str | Path) -> None:
        """Draw the neighbours of an index file from now on.

        Raises:
            FileNotFoundError: There is no such file; the message holds the command that makes it.
            ValueError: It belongs to other images or another pipeline, or has too few columns.
        """
        path = Path(path)
        loaded = NeighbourIndex.load(path)
        differences = compare_fingerprints(loaded.fingerprint, self.images, DATASET_PARTS)
        if differences or len(loaded.neighbours) != len(self.dataset):
            listed = '\n  '.join(differences or [f'{len(loaded.neighbours)} rows for {len(self.dataset)} items'])
            raise ValueError(
                f'the neighbour index {path} was made for other images or another pipeline:\n  {listed}\n'
                f'Make it anew with\n    {command_to_remake(loaded.fingerprint)}'
            )
        self._check_columns(path, *loaded.neighbours.shape)
        self.neighbours, self.fingerprint, self.index_path = loaded.neighbours, loaded.fingerprint, path

    def _check_columns(self, path: Path, items: int, columns: int) -> None:
        if columns - 1 >= self.num_neighbours:
            return
        if columns < items or columns < 2:
            raise ValueError(
                f'num_neighbours={self.num_neighbours}, but the index {path} holds {columns - 1} neighbours per item. '
                f'Lower num_neighbours or make the index with\n    '
                f'{suggested_command(COMMAND, "--force", "--num-neighbours", str(self.num_neighbours + 1))}'
            )
        warnings.warn(
            f'num_neighbours={self.num_neighbours}, but the data set has {items} items: every other item counts as a '
            'neighbour',
            stacklevel=2,
        )
        self.num_neighbours = columns - 1

    def get_data_info(self, idx: int) -> dict:
        """Description of the anchor."""
        return self.dataset.get_data_info(positive_index(idx, len(self)))

    def __getitem__(self, idx: int) -> dict:
        idx = positive_index(idx, len(self))
        if self.neighbours is None:
            self.use_index(find_index(self.index, self.images))
        assert self.neighbours is not None
        rank = int(torch.randint(1, self.num_neighbours + 1, ()))
        chosen = int(self.neighbours[idx, rank])
        item, other = self.dataset[idx], self.dataset[chosen]
        item['inputs'] = Views(anchor=item['inputs'], neighbour=other['inputs'])
        item['data_samples'].set_metainfo(dict(neighbour_item=chosen))
        return item

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_neighbours={self.num_neighbours})'


def pairs_of(dataset: Any) -> list[NeighbourPairs]:
    """All data sets of pairs at or inside a built data set."""
    return [one for one in datasets_in(dataset) if isinstance(one, NeighbourPairs)]
