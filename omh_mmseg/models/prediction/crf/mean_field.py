"""The iterations of the mean field of a dense CRF."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from omh_mmseg.models.prediction.crf.permutohedral import PermutohedralLattice

TABLE_BYTES = 30 * 2**20
"""glibc returns larger arrays to the system after each use, so that every page of the next one is made anew: 4 times
the processor time of a filter."""
FEWEST_CHANNELS = 8
ROWS = 8192


def mean_field(unaries: list[Tensor], filters: list[PermutohedralLattice], iterations: int) -> list[Tensor]:
    """Mean field of several segmentations of an image, whose channels are filtered together.

    Args:
        unaries: Energies, float32 (K, H, W) each.
        filters: At the pixels, row by row; normalised, with their weights.
        iterations: Of the mean field.

    Returns:
        Marginals (K, H, W) of each.
    """
    height, width = unaries[0].shape[1:]
    sizes = [len(unary) for unary in unaries]
    negative = torch.cat([-unary.flatten(1) for unary in unaries]).t().contiguous()  # (n, channels)
    energy, marginals = torch.empty_like(negative), torch.empty_like(negative)
    parts = _parts(negative, max(lattice.num_points for lattice in filters))
    _softmax(negative, sizes, marginals)
    for _ in range(iterations):
        for part in parts:
            values = marginals[:, part].contiguous()
            filtered = filters[0](values)
            for lattice in filters[1:]:
                filtered += lattice(values)
            torch.add(filtered, negative[:, part], out=energy[:, part])
        _softmax(energy, sizes, marginals)
    return [maps.t().reshape(-1, height, width) for maps in marginals.split(sizes, dim=1)]


def _parts(maps: Tensor, points: int) -> list[slice]:
    """Ranges of channels that are filtered together: as many as keep the memory of the CPU's arrays in use."""
    channels = maps.shape[1]
    most = channels
    if maps.device.type == 'cpu':
        most = max(FEWEST_CHANNELS, TABLE_BYTES // (4 * max(points, len(maps))))
    count = -(-channels // most)
    edges = [round(number * channels / count) for number in range(count + 1)]
    return [slice(*pair) for pair in pairwise(edges)]


def _softmax(energy: Tensor, sizes: list[int], out: Tensor) -> None:
    """Over the channels of each segmentation, by rows as many as a processor holds in its cache."""
    rows = ROWS if energy.device.type == 'cpu' else len(energy)
    for some, target in zip(energy.split(rows), out.split(rows)):
        for scores, probabilities in zip(some.split(sizes, dim=1), target.split(sizes, dim=1)):
            probabilities.copy_(torch.softmax(scores, dim=1))
