"""Codes averaged over mirrored images and over windows."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from omh_mmseg.structures.frozen_inputs import Inputs


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
