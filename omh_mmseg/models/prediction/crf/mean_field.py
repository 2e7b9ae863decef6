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
FEW = 16
WIDEST = 80.0
"""Range of energies whose exponentials float32 holds side by side."""


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
    softmax = _Softmax(sizes, negative)
    softmax(negative, marginals)
    for _ in range(iterations):
        for part in parts:
            values = marginals[:, part].contiguous()
            filtered = filters[0](values)
            for lattice in filters[1:]:
                filtered += lattice(values)
            torch.add(filtered, negative[:, part], out=energy[:, part])
        softmax(energy, marginals)
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


class _Softmax:
    """Softmax over the channels of each segmentation, from one array (n, channels) into another.

    torch's softmax of a few numbers per row is slow on a CPU: there the exponentials of all channels are taken at once,
    unless the energies lie so far apart that one of their sums could vanish. Rows go through as many at a time as a
    processor holds in its cache.

    Args:
        sizes: Channels of each segmentation.
        like: An array of energies.
    """

    def __init__(self, sizes: list[int], like: Tensor) -> None:
        self.sizes = sizes
        self.rows = ROWS if like.device.type == 'cpu' else len(like)
        self.at_once = like.device.type == 'cpu' and sum(sizes) < FEW * len(sizes)
        self.members = torch.block_diag(*[like.new_ones(size, 1) for size in sizes])  # (channels, segmentations)

    def __call__(self, energy: Tensor, out: Tensor) -> None:
        for scores, probabilities in zip(energy.split(self.rows), out.split(self.rows)):
            if not (self.at_once and self._at_once(scores, probabilities)):
                for part, target in zip(scores.split(self.sizes, dim=1), probabilities.split(self.sizes, dim=1)):
                    target.copy_(torch.softmax(part, dim=1))

    def _at_once(self, energy: Tensor, out: Tensor) -> bool:
        """Whether it could be done."""
        lowest, highest = torch.aminmax(energy)
        if highest - lowest > WIDEST:
            return False
        torch.sub(energy, highest, out=out).exp_()
        out /= (out @ self.members) @ self.members.t()
        return True
