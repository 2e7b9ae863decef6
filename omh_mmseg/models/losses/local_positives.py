"""HP's local hidden positives: code mixed with that of its most related neighbours (docs/methods/hp.md 3B.6)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from omh_mmseg.utils.precision import widened

ATTENTION_SCALE = 28.0
QUANTILES = (0.1, 0.9)
OFFSETS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]


def feature_affinity(features: Tensor) -> Tensor:
    """Cosines of all positions of each map (B, C, h, w): (B, h w, h w), in place of attention where there is none."""
    with torch.autocast(features.device.type, enabled=False):
        rows = F.normalize(widened(features).flatten(2), dim=1)
        return rows.transpose(1, 2) @ rows


@torch.no_grad()
def neighbour_weights(
    affinity: Tensor, grid: tuple[int, int], scale: float = ATTENTION_SCALE, chunk_elements: int = 2**24
) -> Tensor:
    """Weights of the 3 x 3 neighbourhood of each position.

    Every row of the affinity is clipped to its 10 % and 90 % quantiles, goes through a softmax, is multiplied by
    ``scale``, and entries below the row's mean become zero. Of the result only the neighbours, the position itself
    included, are kept.

    Attention is so even after the clipping that what remains is close to ``scale / (h w)`` everywhere: with the
    reference's constant of 28 on 28 x 28 positions, 0.0357. The mixed code is that much shorter than the code, and the
    bias of the project head counts that much more. 28 is kept on any grid by default.

    Args:
        affinity: (B, h w, h w); rows are the positions that gather, e.g. attention without its extra tokens.
        grid: (h, w).
        scale: The constant.
        chunk_elements: Elements of the images that are worked on at once.

    Returns:
        (B, 9, h, w), row by row from the upper left neighbour to the lower right one; 0 beyond the border. Never in
        half precision.

    Raises:
        ValueError: If the affinity is not that of the grid.

    Source: docs/methods/hp.md 3B.6.
    """
    height, width = grid
    size = height * width
    if affinity.dim() != 3 or tuple(affinity.shape[1:]) != (size, size):
        raise ValueError(
            f'An affinity of a {height} x {width} grid is (B, {size}, {size}); got {tuple(affinity.shape)}. Take the '
            "backbone's attention of the very images that the code is of, without its extra tokens."
        )
    index, exists = grid_neighbours(grid, affinity.device)
    chunks = affinity.split(max(1, chunk_elements // size**2))
    weights = torch.cat([_weights(chunk, index, scale) for chunk in chunks])
    return (weights * exists).transpose(1, 2).unflatten(2, grid)


def grid_neighbours(grid: tuple[int, int], device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Numbers of the 3 x 3 neighbours of each position, clamped to the map, and which of them exist: (h w, 9) each."""
    rows, columns = (torch.arange(side, device=device) for side in grid)
    # Computed where they are needed: values of the host would have to be waited for.
    place = torch.arange(len(OFFSETS), device=device)
    row = rows.repeat_interleave(grid[1])[:, None] + place // 3 - 1
    column = columns.repeat(grid[0])[:, None] + place % 3 - 1
    exists = (row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1])
    return row.clamp(0, grid[0] - 1) * grid[1] + column.clamp(0, grid[1] - 1), exists


def mix_neighbours(code: Tensor, weights: Tensor) -> Tensor:
    """Sum of the neighbours' code by their weights, divided by the number of neighbours that exist (4, 6 or 9).

    Args:
        code: (B, D, h, w); the gradient flows to it, once.
        weights: (B, 9, h, w) of `neighbour_weights`; no gradient.

    Returns:
        s_mix (B, D, h, w).

    Raises:
        ValueError: If the weights are not those of the code's grid.

    Source: docs/methods/hp.md 3B.6.
    """
    batch, _, height, width = code.shape
    if tuple(weights.shape) != (batch, len(OFFSETS), height, width):
        raise ValueError(
            f'Weights of a code {tuple(code.shape)} are {(batch, len(OFFSETS), height, width)}; '
            f'got {tuple(weights.shape)}.'
        )
    _, exists = grid_neighbours((height, width), code.device)
    weights = (weights / exists.sum(1).unflatten(0, (height, width))).to(code.dtype)
    return _Mixture.apply(code, weights)


class _Mixture(torch.autograd.Function):
    """Sum over the offsets of weights (B, 9, h, w) times the code (B, D, h, w) shifted by them.

    By itself autograd would keep a padded map of zeros for each of the nine.
    """

    @staticmethod
    def forward(ctx: Any, code: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        padded, mixed = F.pad(code, (1, 1, 1, 1)), torch.zeros_like(code)
        for weight, shifted in zip(weights.split(1, 1), _shifted(padded)):
            mixed.addcmul_(weight, shifted)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weights,) = ctx.saved_tensors
        height, width = gradient.shape[-2:]
        padded = gradient.new_zeros(*gradient.shape[:-2], height + 2, width + 2)
        for weight, shifted in zip(weights.split(1, 1), _shifted(padded)):
            shifted.addcmul_(weight, gradient)
        return padded[..., 1:-1, 1:-1].contiguous(), None


def _shifted(padded: Tensor) -> list[Tensor]:
    """Views (B, D, h, w) of a map (B, D, h + 2, w + 2): each position's neighbour at each of the offsets."""
    height, width = padded.shape[-2] - 2, padded.shape[-1] - 2
    return [padded[:, :, 1 + row : 1 + row + height, 1 + column : 1 + column + width] for row, column in OFFSETS]


def _weights(affinity: Tensor, index: Tensor, scale: float) -> Tensor:
    """Weights (B, h w, 9) of the neighbours, those beyond the border not yet removed."""
    rows = widened(affinity)
    lower, upper = _quantiles(rows)
    rows = scale * torch.softmax(torch.maximum(torch.minimum(rows, upper), lower), dim=2)
    chosen = rows.gather(2, index.expand(len(rows), -1, -1))
    return chosen.masked_fill_(chosen < rows.mean(2, keepdim=True), 0)


def _quantiles(rows: Tensor) -> list[Tensor]:
    """The two quantiles of each row, interpolated linearly; torch.quantile refuses more than 2**24 numbers."""
    ordered = rows.sort(dim=2).values
    limits = []
    for quantile in QUANTILES:
        rank = quantile * (rows.shape[2] - 1)
        below = int(rank)
        above = min(below + 1, rows.shape[2] - 1)
        limits.append(torch.lerp(ordered[..., below], ordered[..., above], rank - below)[..., None])
    return limits
