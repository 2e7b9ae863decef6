"""Flow from the pixels of two frames, by libraries that keep it well."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from omh_mmseg.checkpoint_files import read_as_data
from omh_mmseg.registry import TASK_UTILS
from omh_mmseg.utils.checks import SIZE, ranges

PRESETS = dict(
    ultrafast=cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    fast=cv2.DISOPTICAL_FLOW_PRESET_FAST,
    medium=cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
)
SMALLEST_DIS = 16
RAFT_CELL, SMALLEST_RAFT = 8, 128
MODELS = ('small', 'large')


class FlowEstimator(Protocol):
    """What gives the flow of a frame to another."""

    def __call__(self, frame: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Flow (2, H, W), float32, of a frame (H, W, 3), uint8, to another of its size; see `omh_mmseg.flow.warping`.

        Raises:
            ValueError: The frames differ in size, or are too small.
        """


@TASK_UTILS.register_module()
class DISFlow:
    """OpenCV's dense inverse search, on the brightness of the frames.

    Args:
        preset: ``'ultrafast'``, ``'fast'`` or ``'medium'``.

    Raises:
        ValueError: Another preset.

    Source: Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016.
    """

    def __init__(self, preset: str = 'medium') -> None:
        if preset not in PRESETS:
            raise ValueError(f'DISFlow: preset must be one of {tuple(PRESETS)}; got {preset!r}.')
        self.preset = preset
        self._dis: Any = None

    def __call__(self, frame: np.ndarray, other: np.ndarray) -> np.ndarray:
        """See `FlowEstimator`."""
        _check_sizes(frame, other, SMALLEST_DIS)
        # Made on first use: it cannot be handed to the processes of a loader.
        self._dis = self._dis or cv2.DISOpticalFlow.create(PRESETS[self.preset])
        flow = self._dis.calc(*(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (frame, other)), None)
        return np.ascontiguousarray(flow.transpose(2, 0, 1))

    def __getstate__(self) -> dict[str, Any]:
        return dict(preset=self.preset, _dis=None)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(preset={self.preset})'


@TASK_UTILS.register_module()
class RAFTFlow:
    """torchvision's RAFT, with weights that are at hand: nothing is downloaded.

    Args:
        weights: File of torchvision's weights, ``raft_small_C_T_V2-01064c6d.pth`` or another.
        model: ``'small'`` or ``'large'``.
        num_updates: Iterations of its refinement.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Another model, or weights that do not fit it.

    Source: Teed and Deng, RAFT: Recurrent All-Pairs Field Transforms for Optical Flow, ECCV 2020.
    """

    @ranges(num_updates=SIZE)
    def __init__(self, weights: str | os.PathLike[str], model: str = 'small', num_updates: int = 12) -> None:
        if model not in MODELS:
            raise ValueError(f'RAFTFlow: model must be one of {MODELS}; got {model!r}.')
        if not Path(weights).is_file():
            raise FileNotFoundError(
                f"there are no RAFT weights {os.fspath(weights)}; torchvision's are at "
                "https://download.pytorch.org/models/, or take flow=dict(type='DISFlow'), which needs none"
            )
        from torchvision.models import optical_flow

        self.weights, self.model, self.num_updates = os.fspath(weights), model, num_updates
        self._net = getattr(optical_flow, f'raft_{model}')(weights=None).eval()
        with read_as_data(self.weights):
            state = torch.load(weights, map_location='cpu', weights_only=True)
        try:
            self._net.load_state_dict(state)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise ValueError(f'{self.weights} holds no weights of raft_{model}: {error}') from error

    @torch.no_grad()
    def __call__(self, frame: np.ndarray, other: np.ndarray) -> np.ndarray:
        """See `FlowEstimator`."""
        _check_sizes(frame, other, SMALLEST_RAFT)
        height, width = frame.shape[:2]
        pad = (0, -width % RAFT_CELL, 0, -height % RAFT_CELL)
        images = [
            torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
            for image in (frame, other)
        ]
        images = [F.pad(image, pad, 'replicate') for image in images]
        flow = self._net(*images, num_flow_updates=self.num_updates)[-1]
        return flow[0, :, :height, :width].contiguous().numpy()

    def __repr__(self) -> str:
        return f'{type(self).__name__}(model={self.model}, weights={Path(self.weights).name})'


def build_flow(config: Any) -> FlowEstimator:
    """An estimator of a config; DIS where it is None.

    Raises:
        ValueError: A config of something else.
    """
    if callable(config):
        return config
    built = TASK_UTILS.build(dict(config or dict(type='DISFlow')))
    if not callable(built):
        raise ValueError(f"flow must be a config such as dict(type='DISFlow'); {config} is a {type(built).__name__}.")
    return built


def _check_sizes(frame: np.ndarray, other: np.ndarray, smallest: int) -> None:
    if frame.shape != other.shape:
        raise ValueError(
            f'the flow of frames of two sizes is not defined: {frame.shape[:2]} and {other.shape[:2]} pixels'
        )
    if min(frame.shape[:2]) < smallest:
        raise ValueError(f'frames of {frame.shape[:2]} pixels are too small for flow: {smallest} is the least side')
