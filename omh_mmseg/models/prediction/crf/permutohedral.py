"""Gaussian filtering of many channels at scattered positions of a few dimensions, in linear time on any device."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST_NORM = 1e-20


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix by rows, to be multiplied with dense ones.

    Embedding bags do it faster on the CPU than the sparse products of torch and scipy, and on a GPU as well.

    Attributes:
        columns: Of the entries, row after row.
        starts: Of each row among the entries.
        entries: Values, float32.
    """

    columns: Tensor
    starts: Tensor
    entries: Tensor

    def __matmul__(self, values: Tensor) -> Tensor:
        return F.embedding_bag(self.columns, values, self.starts, mode='sum', per_sample_weights=self.entries)


class PermutohedralLattice:
    r"""Filter :math:`y_i = \sum_j exp(-|f_i - f_j|^2 / 2)\, x_j`, approximately and up to one factor for all.

    Positions :math:`f` are spread over the corners of the simplices of the lattice :math:`A_d^*` that hold them, the
    lattice is blurred along each of its d + 1 directions, and the result is read off at the same positions. The lattice
    depends on the positions alone: it is built once and filters any number of maps.

    Args:
        features: Positions, float32 (d, n), in units of the standard deviation.

    Attributes:
        num_points: Lattice points in use, of which each position touches d + 1.

    Source: Adams et al., Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010.
    """

    def __init__(self, features: Tensor) -> None:
        d, count = features.shape
        if count == 0:
            raise ValueError('there are no positions to filter at; give features (d, n) with n of at least 1.')
        base, rank, weights = _enclosing_simplices(features)
        keys, radix = _keys(base, rank)
        # One sort gives the distinct points, the number of each corner's point, and the corners of each point.
        ordered, order = keys.flatten().sort(stable=True)
        first = torch.cat([ordered.new_ones(1, dtype=torch.bool), ordered[1:] != ordered[:-1]])
        points = ordered[first]
        self.num_points = len(points)
        corners = torch.empty_like(order).scatter_(0, order, first.cumsum(0) - 1).reshape(d + 1, count)

        # Indices of 32 bits: half the memory to read, and they are most of it for a few channels.
        self._splat = SparseRows((order % count).int(), first.nonzero()[:, 0].int(), weights.flatten()[order])
        self._blurs = [_blur(points, radix, direction) for direction in range(d + 1)]
        starts = torch.arange(0, (d + 1) * count, d + 1, device=features.device, dtype=torch.int32)
        scaled = weights.t().flatten() / (1 + 2.0**-d)
        self._slice = SparseRows(corners.t().flatten().int(), starts, scaled)

    def __call__(self, values: Tensor) -> Tensor:
        """Filter values (n, channels) of float32."""
        lattice = self._splat @ values
        for blur in self._blurs:
            lattice = blur @ lattice
        return self._slice @ lattice

    def normalised(self, weight: float) -> PermutohedralLattice:
        r"""The filter :math:`w D^{-1/2} G D^{-1/2}` of this one's :math:`G`, with :math:`D = diag(G 1)`."""
        count = len(self._slice.starts)
        norm = (self(self._slice.entries.new_ones(count, 1)) + _SMALLEST_NORM).rsqrt()
        result = copy.copy(self)
        splat, cut = self._splat, self._slice
        result._splat = SparseRows(splat.columns, splat.starts, splat.entries * norm[splat.columns, 0])
        entries = (cut.entries.reshape(count, -1) * (weight * norm)).flatten()
        result._slice = SparseRows(cut.columns, cut.starts, entries)
        return result


def _blur(points: Tensor, radix: Tensor, direction: int) -> SparseRows:
    """Each lattice point with half of its two neighbours in a direction, where they are in use."""
    d, count = len(radix), len(points)
    step = torch.full_like(radix, -1)
    if direction < d:
        step[direction] = d
    wanted = points + (step * radix).sum()
    place = torch.searchsorted(points, wanted).clamp_max(count - 1)
    lower = (points[place] == wanted).nonzero()[:, 0]
    upper = place[lower]
    # Who has an upper neighbour is that one's lower neighbour. A row is the point, its upper and its lower neighbour.
    sizes = torch.ones_like(points)
    sizes[lower] += 1
    sizes[upper] += 1
    ends = sizes.cumsum(0)
    starts = ends - sizes
    columns = torch.empty(count + 2 * len(lower), device=points.device, dtype=torch.int32)
    columns[starts] = torch.arange(count, device=points.device, dtype=torch.int32)
    columns[starts[lower] + 1] = upper.int()
    columns[ends[upper] - 1] = lower.int()
    shares = torch.full(columns.shape, 0.5, device=points.device)
    shares[starts] = 1.0
    return SparseRows(columns, starts.int(), shares)


def _keys(base: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """The lattice points at the corners as one number each, (d + 1, n), and the step of a coordinate in them (d,).

    Mixed radix with room for the neighbours beyond either end. From one corner to the next all coordinates grow by 1,
    and that of the highest rank that is left falls by d + 1.
    """
    d = len(base) - 1
    lowest = base[:d].amin(1) - 2 * (d + 1)
    span = base[:d].amax(1) + 2 * (d + 1) - lowest + 1
    radix = torch.ones_like(span)
    for axis in range(d - 2, -1, -1):
        radix[axis] = radix[axis + 1] * span[axis + 1]
    steps = torch.cat([radix, radix.new_zeros(1)])[:, None].expand_as(rank)
    falling = torch.empty_like(rank).scatter_(0, d - rank, steps)
    origin = ((base[:d] - lowest[:, None]) * radix[:, None]).sum(0, keepdim=True)
    return torch.cat([origin, radix.sum() - (d + 1) * falling[:d]]).cumsum(0), radix


def _enclosing_simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest lattice point of remainder 0 (d + 1, n), rank of each coordinate (d + 1, n), weights of corners."""
    d, count = features.shape
    axes = torch.arange(1, d + 1, device=features.device, dtype=features.dtype)
    # The blur has the variance 2 / 3 (d + 1)^2 per axis of the hyperplane.
    scaled = features * ((2 / 3) ** 0.5 * (d + 1) / (axes * (axes + 1)).sqrt())[:, None]
    elevated = features.new_empty(d + 1, count)
    total = features.new_zeros(count)
    for axis in range(d, 0, -1):
        elevated[axis] = total - axis * scaled[axis - 1]
        total = total + scaled[axis - 1]
    elevated[0] = total

    rounded = torch.round(elevated / (d + 1))
    excess = rounded.sum(0).to(torch.int16)
    nearest = rounded.long() * (d + 1)
    difference = elevated - nearest
    small = excess.repeat(d + 1, 1)
    for first in range(d + 1):
        for second in range(first + 1, d + 1):
            smaller = difference[first] < difference[second]
            small[first] += smaller
            small[second] += ~smaller
    rank = small.long()
    # Off the hyperplane by `excess`: the coordinates that were rounded furthest take it back.
    wrap = (rank < 0).long() - (rank > d).long()
    rank, nearest = rank + (d + 1) * wrap, nearest + (d + 1) * wrap

    fraction = (elevated - nearest) / (d + 1)
    weights = features.new_zeros(d + 2, count)
    weights.scatter_add_(0, d - rank, fraction)
    weights.scatter_add_(0, d + 1 - rank, -fraction)
    weights[0] += 1 + weights[d + 1]
    return nearest, rank, weights[: d + 1]
