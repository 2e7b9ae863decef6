"""Gaussian filtering of many channels at scattered positions of a few dimensions, in linear time on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
        # Keys of lattice points as one number: mixed radix with room for the neighbours beyond either end.
        lowest = base[:d].amin(1) - 2 * (d + 1)
        span = base[:d].amax(1) + 2 * (d + 1) - lowest + 1
        radix = torch.ones_like(span)
        for axis in range(d - 2, -1, -1):
            radix[axis] = radix[axis + 1] * span[axis + 1]
        origin = ((base[:d] - lowest[:, None]) * radix[:, None]).sum(0)
        keys = torch.empty(count, d + 1, dtype=torch.long, device=features.device)
        for corner in range(d + 1):
            wrapped = ((rank[:d] > d - corner) * radix[:, None]).sum(0)
            keys[:, corner] = origin + corner * radix.sum() - (d + 1) * wrapped
        points, corners = torch.unique(keys, return_inverse=True)

        # Indices of 32 bits: half the memory to read, and they are most of it for a few channels.
        self.num_points = len(points)
        self._corners, self._weights = corners.int(), weights.t().contiguous()  # (n, d + 1)
        order = corners.flatten().argsort(stable=True)
        self._members, self._member_weights = (order // (d + 1)).int(), self._weights.flatten()[order]
        counts = torch.bincount(corners.flatten(), minlength=self.num_points)
        self._starts = (counts.cumsum(0) - counts).int()
        self._neighbours = [self._pair(points, radix, direction) for direction in range(d + 1)]
        self._halves = features.new_full((self.num_points, 2), 0.5)
        self._scale = 1 / (1 + 2.0**-d)

    def __call__(self, values: Tensor) -> Tensor:
        """Filter values (n, channels) of float32."""
        lattice = values.new_zeros(self.num_points + 1, values.shape[1])  # the last row stands for absent neighbours
        lattice[:-1] = F.embedding_bag(
            self._members, values, self._starts, mode='sum', per_sample_weights=self._member_weights
        )
        for neighbours in self._neighbours:
            lattice[:-1] += F.embedding_bag(neighbours, lattice, mode='sum', per_sample_weights=self._halves)
        result = F.embedding_bag(self._corners, lattice, mode='sum', per_sample_weights=self._weights)
        return result.mul_(self._scale)

    def _pair(self, points: Tensor, radix: Tensor, direction: int) -> Tensor:
        """Both neighbours of each lattice point in a direction, (num_points, 2)."""
        d = len(radix)
        step = torch.full_like(radix, -1)
        if direction < d:
            step[direction] = d
        offset = (step * radix).sum()
        pair = []
        for wanted in (points + offset, points - offset):
            place = torch.searchsorted(points, wanted).clamp_max(self.num_points - 1)
            pair.append(torch.where(points[place] == wanted, place, self.num_points))
        return torch.stack(pair, 1).int()


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
    excess = rounded.sum(0).long()
    nearest = rounded.long() * (d + 1)
    difference = elevated - nearest
    rank = excess.repeat(d + 1, 1)
    for first in range(d + 1):
        for second in range(first + 1, d + 1):
            smaller = difference[first] < difference[second]
            rank[first] += smaller
            rank[second] += ~smaller
    # Off the hyperplane by `excess`: the coordinates that were rounded furthest take it back.
    wrap = (rank < 0).long() - (rank > d).long()
    rank, nearest = rank + (d + 1) * wrap, nearest + (d + 1) * wrap

    fraction = (elevated - nearest) / (d + 1)
    weights = features.new_zeros(d + 2, count)
    weights.scatter_add_(0, d - rank, fraction)
    weights.scatter_add_(0, d + 1 - rank, -fraction)
    weights[0] += 1 + weights[d + 1]
    return nearest, rank, weights[: d + 1]
