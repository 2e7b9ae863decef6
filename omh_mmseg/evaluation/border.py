"""Clusters that live on the border of the image: where it ends, and not what it shows, decides who is in them.

A backbone sees its own padding at the border, and features that feel it can be told from all others. Content lies near
a border, too: the sky at the top of street photos, the road at the bottom. It goes on in the next row of positions.
What padding makes stops: its share falls from one row of positions to the next, in all images at the same place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omh_mmseg.evaluation.heads import head_of

SIDES = ('top', 'left', 'bottom', 'right')
UPRIGHT = ('left', 'right')
LINES = 8
"""Rows, or columns, of positions that are counted from each side; never beyond the middle."""
OUTERMOST = 3
"""A cluster of the border ends at one of so many lines: padding is felt that far."""
MIN_SHARE = 0.2
MIN_FALL = 0.75
MIN_IMAGES = 8
REMEDY = (
    'They tell where the image ends, not what it shows. Look at the padding of the backbone: weights trained with '
    "TensorFlow's 'same' padding want model.backbone.backbone.conv_cfg.type=Conv2dAdaptivePadding; of others the "
    'border can be mirrored, with model.backbone.reflect_padding=2 (docs/backbones.md)'
)


@dataclass(frozen=True)
class BorderCluster:
    """A cluster that ends at a line near a side of the image.

    Attributes:
        field: Of the data sample that has the clustering, such as ``pred_sem_seg``.
        cluster: Its number.
        side: One of `SIDES`.
        line: The last line of the border that it is on, 1 the outermost.
        share: Of the positions of this line that are in the cluster, in [0, 1].
        inside: The same of the next line.
        on_border: Of all positions of the cluster, the share that lies on this side up to this line.
    """

    field: str
    cluster: int
    side: str
    line: int
    share: float
    inside: float
    on_border: float


class BorderCounts:
    """Counts, over images, which clusters the positions of the lines near the four sides are in.

    Args:
        sizes: Field of the data sample -> number of clusters.
        stride: Pixels of the network's input per position of the features.
    """

    def __init__(self, sizes: Mapping[str, int], stride: int) -> None:
        self.sizes, self.stride = dict(sizes), stride
        self.images = 0
        self.lines = {field: np.zeros((len(SIDES), LINES, size), np.int64) for field, size in sizes.items()}
        self.totals = {field: np.zeros(size, np.int64) for field, size in sizes.items()}

    def add(self, samples: Iterable[Any]) -> None:
        """Count predicted samples, those of mmseg, with the fields that they have."""
        for sample in samples:
            fields = [field for field in self.sizes if field in sample]
            if not fields:
                continue
            maps = torch.stack([sample.get(field).data[0] for field in fields])
            height, width = sample.metainfo.get('img_shape', maps.shape[-2:])[:2]
            grids = at_positions(maps, self.stride * maps.shape[-2] / height, self.stride * maps.shape[-1] / width)
            self.images += 1
            for field, grid in zip(fields, grids.cpu().numpy()):
                self.add_grid(field, grid)

    def add_grid(self, field: str, grid: np.ndarray) -> None:
        """Count the clusters (h, w) of an image's positions."""
        size = self.sizes[field]
        self.totals[field] += np.bincount(grid.ravel(), minlength=size)
        for counts, view in zip(self.lines[field], (grid, grid.T, grid[::-1], grid.T[::-1])):
            lines = view[: min(LINES, len(view) // 2)]
            numbered = lines + size * np.arange(len(lines))[:, None]
            counts += np.bincount(numbered.ravel(), minlength=LINES * size).reshape(LINES, size)

    def tensor(self) -> Tensor:
        """All counts in one int64 tensor, to be summed over processes."""
        parts = [np.array([self.images]), *(table.ravel() for table in self._tables())]
        return torch.from_numpy(np.concatenate(parts))

    def take(self, counts: Tensor) -> None:
        """Replace the counts by those of `tensor`."""
        self.images, values = int(counts[0]), counts[1:].cpu().numpy()
        for table in self._tables():
            table[...], values = values[: table.size].reshape(table.shape), values[table.size :]

    def shares(self, field: str) -> np.ndarray:
        """Share of the positions of each line in each cluster, (4, lines, K), of the lines that all sides have."""
        counts = self.lines[field]
        positions = counts.sum(axis=2)
        lines = int((positions > 0).all(axis=0).sum())
        return counts[:, :lines] / np.maximum(positions[:, :lines, None], 1)

    def found(self, field: str) -> list[BorderCluster]:
        """The clusters that end at one of the outermost lines, strongest first; none in fewer than 8 images.

        A cluster ends at a line that at least a fifth of its positions are in, if its share falls from there to the
        next line by at least three quarters of the largest share that it has in any line of this side.
        """
        shares = self.shares(field)
        if self.images < MIN_IMAGES or shares.shape[1] < 2:
            return []
        falls = shares[:, :-1] - shares[:, 1:]
        found = []
        for side, cluster in np.ndindex(shares.shape[0], shares.shape[2]):
            line = int(falls[side, :OUTERMOST, cluster].argmax())
            fall, own = falls[side, line, cluster], shares[side, :, cluster]
            if own[line] < MIN_SHARE or fall < MIN_FALL * own.max():
                continue
            there = float(self.lines[field][side, : line + 1, cluster].sum() / self.totals[field][cluster])
            found.append(
                BorderCluster(field, cluster, SIDES[side], line + 1, float(own[line]), float(own[line + 1]), there)
            )
        return sorted(found, key=lambda one: one.inside - one.share)

    def border_clusters(self, field: str) -> list[BorderCluster]:
        """`found`, if it is the work of padding: if some of it is at the left or right.

        Padding does to columns what it does to rows. Content may end at the same row of all images, such as the bonnet
        of a car that carries the camera at the bottom, but hardly at the same column.
        """
        found = self.found(field)
        return found if any(one.side in UPRIGHT for one in found) else []

    def _tables(self) -> list[np.ndarray]:
        return [*self.lines.values(), *self.totals.values()]


def at_positions(maps: Tensor, height: float, width: float) -> Tensor:
    """Maps (..., H, W) at the centres of positions of so many pixels, as far as these lie in the image."""
    rows, columns = (
        ((torch.arange(math.ceil(length / cell), device=maps.device) + 0.5) * cell).long()
        for length, cell in zip(maps.shape[-2:], (height, width))
    )
    return maps[..., rows[rows < maps.shape[-2]], :][..., columns[columns < maps.shape[-1]]]


def describe(found: Iterable[BorderCluster]) -> str:
    """Where each of these clusters ends, in words."""
    return '; '.join(
        f'{head_of(one.field)}, cluster {one.cluster}: {one.share:.0%} of {_line(one)}, {one.inside:.0%} of the next'
        for one in found
    )


def _line(one: BorderCluster) -> str:
    kind = 'column' if one.side in UPRIGHT else 'row'
    place = 'outermost' if one.line == 1 else ('second' if one.line == 2 else 'third')
    return f'the {place} {kind} of positions at the {one.side}'


def border_sentence(counts: BorderCounts) -> str:
    """What is to be said of the clusters of the border, with what to look at."""
    if counts.images < MIN_IMAGES:
        return f'{counts.images} images are too few to tell clusters of the border; give {MIN_IMAGES} at least'
    found = [one for field in counts.sizes for one in counts.border_clusters(field)]
    if found:
        return f'Clusters live on the border of the image: {describe(found)}. {REMEDY}.'
    ends = [one for field in counts.sizes for one in counts.found(field)]
    if ends:
        return (
            f'No cluster lives on the border of the image, as none ends at its left or right: {describe(ends)}, which '
            'content at the same place of all images does as well.'
        )
    return 'No cluster lives on the border of the image.'
