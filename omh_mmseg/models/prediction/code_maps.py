"""What a prediction does with codes between the projection head and the scores, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.structures.frozen_inputs import Inputs

MAX_VALUES = 1 << 26
"""Numbers that an upsampled map may hold at once: a quarter of a gigabyte in float32."""


def flip_averaged(encode: Callable[[Inputs], Tensor], images: Inputs) -> Tensor:
    """``(code(x) + flip(code(flip(x)))) / 2`` with the horizontal flip, on the grid of the code.

    Args:
        encode: Images (B, 3, H, W) -> code (B, D, h, w).
        images: (B, 3, H, W), or what is frozen of them.

    Source: docs/methods/evaluation.md 6.3.
    """
    return (encode(images) + encode(images.flip(-1)).flip(-1)) / 2


def slide_averaged(
    encode: Callable[[Tensor], Tensor], images: Tensor, crop: tuple[int, int], step: tuple[int, int], cell: int
) -> Tensor:
    """Code of images from overlapping windows; where windows overlap, their codes are averaged.

    The windows lie as mmseg's: from the top left in steps, the last of each row and column moved back to the border.
    A window larger than the image is cut to it, so that one window that covers the image gives the code of the whole.
    The average is taken on the grid of the code: what is upsampled afterwards has no seams at the windows' borders.

    Args:
        encode: Images (B, 3, H, W) -> code (B, D, H / cell, W / cell).
        images: (B, 3, H, W).
        crop: Height and width of a window in pixels, multiples of ``cell``.
        step: Distances of windows in pixels, down and to the right, multiples of ``cell``.
        cell: Pixels per position of the code.

    Raises:
        ValueError: If the image needs several windows and a side is no multiple of ``cell``.
    """
    height, width = images.shape[-2:]
    rows, columns = window_starts(height, crop[0], step[0]), window_starts(width, crop[1], step[1])
    if len(rows) == len(columns) == 1:
        return encode(images)
    if height % cell or width % cell:
        raise ValueError(
            f'images of {height}x{width} are no multiple of the {cell} pixels of a position of the code, on which '
            f'windows must lie. Set data_preprocessor.test_cfg=dict(size_divisor={cell}), which pads them.'
        )
    total: Tensor | None = None
    counts = images.new_zeros(1, 1, height // cell, width // cell)
    for top in rows:
        for left in columns:
            code = encode(images[..., top : top + crop[0], left : left + crop[1]])
            if total is None:
                total = code.new_zeros(*code.shape[:2], *counts.shape[-2:])
            y, x = top // cell, left // cell
            place = (..., slice(y, y + code.shape[-2]), slice(x, x + code.shape[-1]))
            total[place] += code
            counts[place] += 1
    assert total is not None
    return total / counts


def window_starts(length: int, crop: int, step: int) -> list[int]:
    """First pixels of the windows that cover ``length`` pixels."""
    if crop >= length:
        return [0]
    count = -(-(length - crop) // step) + 1
    return [min(index * step, length - crop) for index in range(count)]


def upsampled_norm(code: Tensor, size: Sequence[int]) -> Tensor:
    """Length of each pixel's code after bilinear upsampling, (1, 1, H, W), without the upsampled code.

    A pixel's code is a weighted sum of four, so that its squared length is a sum over the ten products of these four.
    Products with neighbours are taken once on the grid of the code: the cost per pixel does not depend on D.

    Args:
        code: (1, D, h, w).
        size: H and W.
    """
    rows, row_weights = _bilinear(code.shape[-2], int(size[0]), code)
    columns, column_weights = _bilinear(code.shape[-1], int(size[1]), code)
    padded = F.pad(code, (0, 1, 0, 1), mode='replicate')
    height, width = code.shape[-2:]
    corners = {(y, x): padded[..., y : y + height, x : x + width] for y in (0, 1) for x in (0, 1)}
    squared = code.new_zeros(len(rows), len(columns))
    for first, second in combinations_with_replacement(corners, 2):
        products = (corners[first] * corners[second]).sum(1)[0]  # (h, w)
        weights = torch.outer(
            row_weights[first[0]] * row_weights[second[0]], column_weights[first[1]] * column_weights[second[1]]
        )
        squared += (1 if first == second else 2) * weights * products[rows][:, columns]
    return squared.clamp_min(0).sqrt()[None, None]


def _bilinear(cells: int, pixels: int, like: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """First of the two cells that each pixel lies between, and the weights of both, with ``align_corners=False``."""
    centres = (torch.arange(pixels, device=like.device, dtype=like.dtype) + 0.5) * (cells / pixels) - 0.5
    centres = centres.clamp_min(0)
    first = centres.floor().long().clamp_max(cells - 1)
    return first, (1 - (centres - first), centres - first)


def arg_max(
    scores: Tensor,
    resize: Callable[[Tensor], Tensor],
    pixels: int,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    max_values: int = MAX_VALUES,
) -> Tensor:
    """Best cluster of each resized pixel, (1, H, W), upsampling a few clusters at a time where all are too many.

    Args:
        scores: (1, K, h, w).
        resize: Maps (1, any, h, w) -> (1, same, H, W), each map on its own.
        pixels: H W.
        bias: (K), added to the resized scores of each cluster, times ``norm``; None for none.
        norm: (1, 1, H, W), length of each pixel's code.
        max_values: Bound on the numbers of an upsampled map.
    """

    def resized(part: Tensor, start: int) -> Tensor:
        maps = resize(part)
        if bias is None or norm is None:
            return maps
        return torch.addcmul(maps, norm.to(maps), bias[start : start + part.shape[1], None, None].to(maps))

    step = max(1, max_values // pixels)
    # With the scores of a pixel side by side, interpolation and arg-max take a third of the time on a CPU.
    scores = scores.contiguous(memory_format=torch.channels_last)
    if scores.shape[1] <= step:
        return resized(scores, 0).argmax(1)
    best: Tensor | None = None
    labels: Tensor | None = None
    for start in range(0, scores.shape[1], step):
        part = scores[:, start : start + step].contiguous(memory_format=torch.channels_last)
        values, indices = resized(part, start).max(1)
        if best is None or labels is None:
            best, labels = values, indices
        else:
            better = values > best
            best = torch.where(better, values, best)
            labels = torch.where(better, indices + start, labels)
    assert labels is not None
    return labels
