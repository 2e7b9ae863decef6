"""Flow between two items of a data set of frames: the exact one where it is known, else an estimate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from omh_mmseg.datasets.wrapper import DatasetWrapper
from omh_mmseg.flow import FlowEstimator, visible
from omh_mmseg.flow.estimators import build_flow

CHANNELS = 3
"""Of a flow in a data sample: to the right, down, and whether the other frame shows the pixel."""


class FrameFlow:
    """Flow between frames, with the pixels that the other frame shows.

    Args:
        source: Data set of frames, no wrapper.
        flow: Config of an estimator. None: the flow that the data set knows, else OpenCV's DIS.
    """

    def __init__(self, source: Any, flow: dict[str, Any] | FlowEstimator | None = None) -> None:
        self.source = source
        self.exact = flow is None and hasattr(source, 'exact_flow')
        self.estimator = None if self.exact else build_flow(flow)

    def between(self, frame: int, other: int, pixels: tuple[np.ndarray, np.ndarray] | None = None) -> Tensor:
        """Flow of an item to another and its visibility, (3, H, W), float32.

        Args:
            frame: The item.
            other: The other.
            pixels: Of both, (H, W, 3), RGB; by default as the files have them. The exact flow is of those.

        Raises:
            ValueError: The frames have two sizes, or ``pixels`` another size than the exact flow.
        """
        if self.estimator is None:
            there, back = self.source.exact_flow(frame, other), self.source.exact_flow(other, frame)
            if pixels is not None and pixels[0].shape[:2] != there.shape[1:]:
                raise ValueError(
                    f'the exact flow is of frames of {there.shape[1:]} pixels, and the pipeline makes '
                    f"{pixels[0].shape[:2]} of them: take its resize and crop away, or set flow=dict(type='DISFlow')"
                )
        else:
            pixels = pixels or (self.source.read_frame(frame), self.source.read_frame(other))
            try:
                there, back = self.estimator(*pixels), self.estimator(*reversed(pixels))
            except ValueError as error:
                names = [self.source.get_data_info(item)['img_path'] for item in (frame, other)]
                raise ValueError(f'{names[0]} and {names[1]}: {error}') from error
        flows = [torch.from_numpy(np.ascontiguousarray(flow))[None] for flow in (there, back)]
        return torch.cat([flows[0][0], visible(*flows).float()])

    def __repr__(self) -> str:
        return 'exact' if self.estimator is None else repr(self.estimator)


def source_of(dataset: Any) -> Any:
    """The data set of frames inside wrappers that keep its items.

    Raises:
        ValueError: A wrapper has other items, such as crops.
    """
    while isinstance(dataset, DatasetWrapper):
        if not dataset.uses_wrapped_images or len(dataset) != len(dataset.dataset):
            raise ValueError(
                f'the items of {type(dataset).__name__} are no frames of sequences; take it off the data set'
            )
        dataset = dataset.dataset
    return dataset
