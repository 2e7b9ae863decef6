"""Figures of a segmentation that need no labels; what they can and cannot say: docs/evaluation.md, Without labels."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FIGURES = ('in_use', 'effective', 'margin', 'mirror', 'crop', 'boundary')
"""Names of the figures of a head, in the order of docs/evaluation.md."""
TOLERANCE = 2


def effective_clusters(sizes: np.ndarray) -> float:
    """Exponential of the entropy of cluster sizes: k clusters of equal size count as k, empty ones not at all.

    Args:
        sizes: Pixels of each cluster, (K,).

    Returns:
        Between 1 and K; NaN where there is no pixel.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    if not sizes.sum() > 0:
        return math.nan
    shares = sizes[sizes > 0] / sizes.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def margins(similarities: Tensor) -> Tensor:
    """Distance of the best cluster of each position from the second best, in the units of the similarities.

    Args:
        similarities: Cosines (K, h, w).

    Returns:
        (h, w), not negative; NaN for a single cluster, which has no second.
    """
    if len(similarities) < 2:
        return torch.full_like(similarities[0], math.nan)
    best, second = similarities.topk(2, dim=0).values
    return best - second


def cluster_boundaries(labels: Tensor) -> Tensor:
    """Pixels (H, W) with another label to their left, right, top or bottom, bool."""
    edges = torch.zeros_like(labels, dtype=torch.bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= right
    edges[:, :-1] |= right
    return edges


def image_gradients(image: Tensor, tolerance: int = TOLERANCE) -> Tensor:
    """Largest gradient of the image within some pixels of each pixel.

    Args:
        image: (C, H, W), of any scale.
        tolerance: How far the largest is looked for, in pixels to each side.

    Returns:
        (H, W), not negative: lengths of Sobel's gradients of all channels together, borders repeated.
    """
    channels = F.pad(image.float()[:, None], (1, 1, 1, 1), mode='replicate')
    kernel = channels.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    gradients = F.conv2d(channels, torch.stack([kernel, kernel.t()])[:, None])  # (C, 2, H, W)
    length = gradients.square().sum((0, 1)).sqrt()[None]
    return F.max_pool2d(length, 2 * tolerance + 1, stride=1, padding=tolerance)[0]


class BoundaryAgreement:
    """Probability that a pixel on a cluster boundary has a larger image gradient than one that is on none.

    Args:
        gradients: Of the image, (H, W), see `image_gradients`. They are sorted once, for any number of segmentations.
    """

    def __init__(self, gradients: Tensor) -> None:
        self._gradients = gradients

    def of(self, labels: Tensor) -> float:
        """In [0, 1], equal gradients counting half: 0.5 for boundaries that know nothing of the image.

        NaN where there is no boundary, or nothing else.

        Args:
            labels: Clusters (H, W).
        """
        edges = cluster_boundaries(labels).flatten().cpu().numpy()
        on, off = int(edges.sum()), int((~edges).sum())
        if not on or not off:
            return math.nan
        return float((self._ranks[edges].sum() - on * (on + 1) / 2) / (on * off))

    @cached_property
    def _ranks(self) -> np.ndarray:
        from scipy.stats import rankdata

        return rankdata(self._gradients.flatten().cpu().numpy())
