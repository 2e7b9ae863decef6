"""A frame together with a later one of its sequence."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import BaseDataset
from mmengine.structures import PixelData
from torch import Tensor

from omh_mmseg.datasets.neighbours.pairs import Views
from omh_mmseg.datasets.random_transforms import random_transforms, transforms_of
from omh_mmseg.datasets.video.frame_flow import FrameFlow, source_of
from omh_mmseg.datasets.video.sequences import FrameOrder
from omh_mmseg.datasets.wrapper import DatasetWrapper, outside_cache, positive_index
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.temporal import FLOW, LATER
from omh_mmseg.utils.checks import COUNT, SIZE, ranges
from omh_mmseg.utils.generators import seeded

NEIGHBOUR = 'neighbour'
VIEWS = (LATER, NEIGHBOUR)
REMEMBERED = 256 << 20
"""Bytes of flows that a process remembers."""


@DATASETS.register_module()
class TemporalPairs(DatasetWrapper):
    """Item i together with the frame of its sequence that comes ``gap`` frames later, or earlier where none does.

    In shorter sequences it is the frame farthest away; a frame without any other is its own partner, with a warning.

    As ``'later'`` the frame stands beside what the item has, a neighbour of `NeighbourPairs` for instance, for the
    temporal term of a model (`TemporalConsistencyLoss`), and the data sample has the flow to it. As ``'neighbour'`` it
    is STEGO's neighbour itself, and there is no flow. There are as many items as frames, so that a run draws the same
    ones with the pairs and without.

    Frozen features come from a cache as ever, a frame at a time; the flow is computed from the images, once per process
    where the memory for it allows.

    Args:
        dataset: The wrapped data set of frames, built or as a config; may be wrapped in `NeighbourPairs`.
        gap: Frames between the two.
        view: ``'later'`` or ``'neighbour'``.
        flow: Config of an estimator, see `FrameFlow`.
        cell: The flow is kept as means over squares of so many pixels.
        lazy_init: Leave :meth:`full_init` to the first access.

    Raises:
        ValueError: No data set of frames, frames that are all alone, a pipeline that draws at random, frames of two
            sizes, or a flow that would reach nothing.
    """

    wraps_cache = True
    extra_views = 1

    @ranges(gap=COUNT, cell=SIZE)
    def __init__(
        self,
        dataset: BaseDataset | DatasetWrapper | dict,
        gap: int = 1,
        view: str = LATER,
        flow: Mapping[str, Any] | None = None,
        cell: int = 8,
        lazy_init: bool = False,
    ) -> None:
        if view not in VIEWS:
            raise ValueError(f'view={view!r} is unknown; choose one of {VIEWS}')
        if view == NEIGHBOUR and flow is not None:
            raise ValueError(
                f"flow={flow!r} reaches nothing: a frame that is the neighbour needs none; set view='later'"
            )
        self.gap, self.view, self.flow, self.cell = gap, view, flow, cell
        self._remembered: OrderedDict[int, Tensor] = OrderedDict()
        self._bytes = 0
        super().__init__(dataset, lazy_init)

    def _after_init(self) -> None:
        source = source_of(self.dataset)
        self.order = FrameOrder(source)
        self.partners = self.order.partners(self.gap)
        flow = None if self.flow is None else dict(self.flow)
        self.frame_flow = None if self.view == NEIGHBOUR else FrameFlow(source, flow)
        self.reads_images = self.frame_flow is not None
        drawing = random_transforms(transforms_of(source))
        if not drawing:
            once, again = (self._seeded(source, seed) for seed in (0, 1))
            drawing = [] if once.shape == again.shape and torch.equal(once, again) else ['one of the transforms']
        if drawing:
            raise ValueError(
                f'the pipeline of a data set of frames draws at random ({", ".join(drawing)}): a frame and the next '
                'would be cut or coloured differently. Take that away'
            )

    @staticmethod
    def _seeded(source: Any, seed: int) -> Tensor:
        with seeded('temporal pairs', seed):
            return source[0]['inputs']

    def get_data_info(self, idx: int) -> dict:
        """Description of the frame."""
        return self.dataset.get_data_info(positive_index(idx, len(self)))

    def __getitem__(self, idx: int) -> dict:
        idx = positive_index(idx, len(self))
        item, partner = self.dataset[idx], self.partners[idx]
        other = self._frames()[partner]['inputs']
        views = item['inputs'] if isinstance(item['inputs'], Mapping) else dict(anchor=item['inputs'])
        if self.view in views:
            raise ValueError(
                f'the items have a {self.view} already: {sorted(views)}. Take NeighbourPairs or TemporalPairs off the '
                'wrapped data set'
            )
        item['inputs'] = Views(**views, **{self.view: other})
        item['data_samples'].set_metainfo(dict(frames_apart=self.order[partner].frame - self.order[idx].frame))
        if self.frame_flow is not None:
            item['data_samples'].set_data({FLOW: PixelData(data=self._flow(idx, partner, views['anchor'], other))})
        return item

    def _frames(self) -> Any:
        """What delivers a frame by itself: the data set below those that pair."""
        return outside_cache(self.dataset)[1]

    def _flow(self, idx: int, partner: int, here: Any, there: Any) -> Tensor:
        if idx in self._remembered:
            return self._remembered[idx]
        assert self.frame_flow is not None
        source = self.frame_flow.source
        # Cached features come without the image.
        tensors = [
            view if isinstance(view, Tensor) else source[item]['inputs']
            for item, view in ((idx, here), (partner, there))
        ]
        pixels = [np.ascontiguousarray(tensor.permute(1, 2, 0).numpy()[..., ::-1]) for tensor in tensors]
        flow = self.frame_flow.between(idx, partner, (pixels[0], pixels[1]))
        kept = F.avg_pool2d(flow[None], self.cell, ceil_mode=True, count_include_pad=False)[0]
        self._remembered[idx] = kept
        self._bytes += kept.numel() * kept.element_size()
        while self._bytes > REMEMBERED:
            _, dropped = self._remembered.popitem(last=False)
            self._bytes -= dropped.numel() * dropped.element_size()
        return kept

    def __repr__(self) -> str:
        return f'{type(self).__name__}(gap={self.gap}, view={self.view})'
