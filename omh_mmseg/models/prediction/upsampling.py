"""From the grid of a code to pixels, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_VALUES = 1 << 22
"""Numbers that an upsampled map may hold at once.

16 MiB in float32: from 32 MiB on the C library asks the system for new pages at each allocation, and an arg-max takes
two to four times as long on a CPU.
"""


@dataclass(frozen=True)
class Upsampling:
    """Bilinear upsampling of maps (1, K, h, w) of a padded image to the size that its masks have.

    Args:
        padded: Height and width of the network's input.
        image: Those without the padding at the right and bottom, which is cut off.
        target: Those of the result.
    """

    padded: tuple[int, int]
    image: tuple[int, int]
    target: tuple[int, int]

    @classmethod
    def to(cls, size: Sequence[int]) -> Upsampling:
        """That of an input without padding to its own size."""
        height, width = size
        return cls((height, width), (height, width), (height, width))

    def __call__(self, maps: Tensor) -> Tensor:
        """Maps (1, K, H, W)."""
        return self._resized(maps, *self._steps())

    def rows(self, height: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """What each row of the result takes from each of the ``height`` rows of the maps, (H, h)."""
        identity = torch.eye(height, dtype=dtype, device=device)[None, :, :, None]
        return self._resized(identity, *((size[0], 1) for size in self._steps()))[0, :, :, 0].t()

    def columns(self, maps: Tensor) -> Tensor:
        """Rows (1, K, n, W) of the result from rows (1, K, n, w) that are already its own."""
        return self._resized(maps, *((maps.shape[-2], size[1]) for size in self._steps()))

    def _steps(self) -> list[tuple[int, int]]:
        return [self.target] if self.image == self.padded else [self.padded, self.image, self.target]

    @staticmethod
    def _resized(maps: Tensor, *steps: tuple[int, int]) -> Tensor:
        if len(steps) > 1:
            padded, image, _ = steps
            maps = _bilinear(maps, padded)[..., : image[0], : image[1]]
        return _bilinear(maps, steps[-1])


def arg_max(
    scores: Tensor,
    upsampling: Upsampling,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    max_values: int = MAX_VALUES,
) -> Tensor:
    """Best cluster of each pixel, (1, H, W), a band of rows after the other.

    Args:
        scores: (1, K, h, w).
        upsampling: Of the scores.
        bias: (K), added to the upsampled scores of each cluster, times ``norm``; None for none.
        norm: (1, 1, H, W), length of each pixel's code.
        max_values: Bound on the numbers of an upsampled band, which has one row at least.
    """
    (height, width), clusters = upsampling.target, scores.shape[1]
    weights = upsampling.rows(scores.shape[-2], scores.dtype, scores.device)
    # Another device would have to be waited for.
    known = weights if scores.device.type == 'cpu' else upsampling.rows(scores.shape[-2], scores.dtype, 'cpu')
    takes = (known != 0).numpy()
    # With the scores of a pixel side by side, interpolation and arg-max take a third of the time on a CPU.
    by_row = scores[0].permute(1, 2, 0).contiguous()  # (h, w, K)
    labels = torch.empty(1, height, width, dtype=torch.long, device=scores.device)
    step = max(1, max_values // (clusters * width))
    for top in range(0, height, step):
        band = slice(top, top + step)
        used = np.flatnonzero(takes[band].any(0))
        first, last = int(used[0]), int(used[-1]) + 1
        with torch.autocast(scores.device.type, enabled=False):
            rows = weights[band, first:last] @ by_row[first:last].flatten(1)
        maps = upsampling.columns(rows.view(1, len(rows), -1, clusters).permute(0, 3, 1, 2))
        if bias is not None and norm is not None:
            maps.addcmul_(norm[..., band, :].to(maps), bias[:, None, None].to(maps))
        labels[:, band] = maps.argmax(1)
    return labels


def upsampled_norm(code: Tensor, size: Sequence[int]) -> Tensor:
    """Length of each pixel's code after bilinear upsampling, (1, 1, H, W), without the upsampled code.

    A pixel's code is a weighted sum of four, its squared length one of the products of these four. They are taken on
    the grid of the code, then combined along the columns and along the rows: the cost per pixel does not depend on D.

    Args:
        code: (1, D, h, w).
        size: H and W.
    """
    padded = F.pad(code[0], (0, 1, 0, 1), mode='replicate')
    here, right, below, across = padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]
    square, down = (here * here).sum(0), (here * below).sum(0)
    aside, crossing = (here * right).sum(0), (here * across + below * right).sum(0)

    row, next_row, share = _cells(code.shape[-2], int(size[0]), code)
    share = share[:, None]
    first, mixed, second = (1 - share) ** 2, share * (1 - share), share**2
    squares = first * square[row] + 2 * mixed * down[row] + second * square[next_row]  # (H, w)
    asides = first * aside[row] + mixed * crossing[row] + second * aside[next_row]

    column, next_column, share = _cells(code.shape[-1], int(size[1]), code)
    result = (1 - share) ** 2 * squares[:, column] + share**2 * squares[:, next_column]
    result += 2 * share * (1 - share) * asides[:, column]
    return result.clamp_min_(0).sqrt_()[None, None]


def _cells(cells: int, pixels: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells that each pixel lies between, and the share of the second, with ``align_corners=False``."""
    centres = (torch.arange(pixels, device=like.device, dtype=like.dtype) + 0.5) * (cells / pixels) - 0.5
    centres = centres.clamp_min(0)
    first = centres.floor().long().clamp_max(cells - 1)
    return first, (first + 1).clamp_max(cells - 1), centres - first


def _bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=False)
