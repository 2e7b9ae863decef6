"""Maps and labels along a flow, and the pixels that the other frame does not show.

A flow (2, H, W) of a frame to another says for each pixel how far to the right and how far down, in pixels, the other
frame has what the pixel shows. Warping is backward: each pixel of the frame looks up the other one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.utils.precision import widened

RELATIVE, ABSOLUTE = 0.01, 0.5
"""Largest squared error of going there and back: a share of the squared lengths of both flows, and square pixels."""


def positions(flow: Tensor) -> Tensor:
    """Where the other frame has each pixel, column and row, (B, 2, H, W), of a flow (B, 2, H, W)."""
    height, width = flow.shape[-2:]
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None].expand(height, width)
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype).expand(height, width)
    return flow + torch.stack([columns, rows])


def inside(flow: Tensor) -> Tensor:
    """Pixels (B, H, W) that do not leave the other frame, bool, of a flow (B, 2, H, W)."""
    height, width = flow.shape[-2:]
    x, y = positions(flow).unbind(1)
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def warp(maps: Tensor, flow: Tensor) -> Tensor:
    """The other frame's maps as the frame has them, bilinear; pixels that left it get those of its border.

    Args:
        maps: Of the other frame, (B, C, H, W).
        flow: Of the frame to the other, (B, 2, H, W), in pixels of the maps.

    Returns:
        (B, C, H, W), in float32 or wider; differentiable with respect to the maps.

    Raises:
        ValueError: Maps and flow have different sizes.
    """
    if maps.shape[-2:] != flow.shape[-2:] or len(maps) != len(flow):
        raise ValueError(f'maps {tuple(maps.shape)} and flow {tuple(flow.shape)} must have one batch and size')
    maps = widened(maps)
    height, width = maps.shape[-2:]
    sides = flow.new_tensor([max(width - 1, 1), max(height - 1, 1)]).to(maps)
    grid = 2 * positions(flow.to(maps)).permute(0, 2, 3, 1) / sides - 1
    with torch.autocast(maps.device.type, enabled=False):
        return F.grid_sample(maps, grid, mode='bilinear', padding_mode='border', align_corners=True)


def warp_labels(labels: Tensor, flow: Tensor) -> Tensor:
    """The other frame's labels (B, H, W) as the frame has them: of the nearest pixel, clamped to the frame."""
    height, width = labels.shape[-2:]
    x, y = positions(flow).round().long().unbind(1)
    flat = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return labels.flatten(1).gather(1, flat.flatten(1)).view_as(labels)


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Pixels of a frame that the other frame shows as well: going there and back ends where it began.

    ``|f(p) + b(p + f(p))|^2 <= 0.01 (|f(p)|^2 + |b(p + f(p))|^2) + 0.5``, and ``p + f(p)`` lies in the other frame.

    Args:
        forward: Flow f of the frame to the other, (B, 2, H, W).
        backward: Flow b of the other to the frame, likewise.

    Returns:
        (B, H, W), bool.

    Source: Sundaram, Brox, Keutzer: Dense Point Trajectories by GPU-Accelerated Large Displacement Optical Flow,
    ECCV 2010.
    """
    back = warp(backward, forward)
    error = (forward + back).square().sum(1)
    bound = RELATIVE * (forward.square().sum(1) + back.square().sum(1)) + ABSOLUTE
    return (error <= bound) & inside(forward)


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """A flow (B, 2, H, W) of frames at another size (h, w), bilinear; its lengths are in pixels of that size."""
    height, width = flow.shape[-2:]
    if (height, width) == tuple(size):
        return flow
    scales = flow.new_tensor([size[1] / width, size[0] / height])[:, None, None]
    return F.interpolate(flow, size=tuple(size), mode='bilinear', align_corners=False) * scales
