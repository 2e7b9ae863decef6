"""Confidence intervals over images, in memory that does not grow with their number."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np


class PoissonBootstrap:
    """Resamples images by giving each a weight from Poisson(1) in every resample.

    The ordinary bootstrap draws N of N images with replacement and needs all their count matrices at the end; the
    number of times that an image is drawn is close to Poisson(1) and independent of the others, so that weights can be
    drawn image by image and only one weighted sum per resample be kept. An image's weights follow from the seed and its
    name: neither the order of images nor the number of processes matters.

    Args:
        resamples: B, the number of resamples; 0 for none.
        seed: Of the weights.

    Raises:
        ValueError: ``resamples`` is negative.

    Source: Hanley and MacGibbon, Creating non-parametric bootstrap samples using Poisson frequencies, Computer Methods
    and Programs in Biomedicine 83, 2006.
    """

    def __init__(self, resamples: int = 0, seed: int = 0) -> None:
        if resamples < 0:
            raise ValueError(f'bootstrap must be at least 0 resamples; got {resamples}')
        self.resamples = resamples
        self.seed = seed

    def weights(self, name: str) -> np.ndarray:
        """Weights of an image, int64 (1 + B,): the first is 1, for the data set itself."""
        if not self.resamples:
            return np.ones(1, np.int64)
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        return np.concatenate([[1], generator.poisson(1.0, self.resamples)]).astype(np.int64)

    def zeros(self, num_predicted: int, num_classes: int) -> np.ndarray:
        """Empty sums, int64 (num_predicted, num_classes, 1 + B); [..., 0] is the data set's count matrix."""
        return np.zeros((num_predicted, num_classes, 1 + self.resamples), np.int64)

    def add(self, sums: np.ndarray, counts: np.ndarray, name: str) -> None:
        """Add the counts of an image to all sums, in place.

        Args:
            sums: (num_predicted, num_classes, 1 + B).
            counts: (num_predicted, num_classes).
            name: Unique among the images, such as its path.
        """
        # An image has few of the pairs of cluster and class.
        present = np.nonzero(counts)
        sums[present] += counts[present][:, None] * self.weights(name)


def percentile_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval that holds the given share of a score's values in the resamples.

    Args:
        values: Score of each resample; NaN where it has none.
        confidence: Share, in (0, 1).

    Returns:
        Lower and upper end; NaN where no resample has a score.
    """
    known = np.asarray(values)[~np.isnan(values)]
    if not known.size:
        return float('nan'), float('nan')
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
