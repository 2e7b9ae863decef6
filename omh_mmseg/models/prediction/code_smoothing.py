"""Codes of a video, each averaged with those of the frames before it along the flow."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.flow import FlowEstimator, resize_flow, visible, warp
from omh_mmseg.utils.checks import ranges


class CodeSmoother:
    r"""Exponential smoothing: :math:`s_t = (1 - w) z_t + w\, s_{t-1}(p + f(p))` where the frame before shows the pixel.

    Elsewhere, and in the first frame, the code stays as it is: what comes into view, and a cut, begin anew.

    Args:
        weight: w, of the past, in [0, 1).
        flow: Estimator.

    Attributes:
        code: The latest result, (1, D, h, w); None before the first frame.
        pixels: Of that frame, (H, W, 3), uint8, RGB.
    """

    @ranges(weight='[0, 1)')
    def __init__(self, weight: float, flow: FlowEstimator) -> None:
        self.weight, self.flow = weight, flow
        self.code: Tensor | None = None
        self.pixels: np.ndarray | None = None

    def __call__(self, code: Tensor, pixels: np.ndarray, padded: tuple[int, int]) -> Tensor:
        """Smooth the code of the next frame.

        Args:
            code: (1, D, h, w).
            pixels: Of the network's input, (H, W, 3), uint8, RGB.
            padded: Height and width of the input with its padding at the right and bottom.

        Raises:
            ValueError: The frame has another size than the one before.
        """
        pixels = np.ascontiguousarray(pixels)
        if self.code is not None and self.pixels is not None:
            back, there = (
                torch.from_numpy(np.ascontiguousarray(flow))[None]
                for flow in (self.flow(pixels, self.pixels), self.flow(self.pixels, pixels))
            )
            field = torch.cat([back, visible(back, there)[:, None].to(back)], 1)
            height, width = pixels.shape[:2]
            field = F.pad(field, (0, padded[1] - width, 0, padded[0] - height)).to(code)
            grid = (int(code.shape[-2]), int(code.shape[-1]))
            share = self.weight * F.interpolate(field[:, 2:], size=grid, mode='area')
            before = warp(self.code.to(code), resize_flow(field[:, :2], grid))
            code = (1 - share) * code + share * before
        self.code, self.pixels = code, pixels
        return code
