"""Agreement of clusters and classes without any matching of the two."""

from __future__ import annotations

import numpy as np


def normalised_mutual_information(counts: np.ndarray) -> float:
    """Mutual information of cluster and class, over the mean of their entropies.

    NMI = 2 I(U; V) / (H(U) + H(V)), with the shares of pixels as probabilities.

    Args:
        counts: (clusters, classes), pixels of each pair.

    Returns:
        In [0, 1]: 0 for independent ones, 1 for a permutation (and for a single cluster and class). NaN without a
        pixel.

    Source: Strehl and Ghosh, Cluster ensembles, JMLR 3, 2002; normalisation by the arithmetic mean.
    """
    joint = np.asarray(counts, dtype=np.float64)
    if joint.sum() == 0:
        return float('nan')
    joint = joint / joint.sum()
    entropies = _entropy(joint.sum(axis=1)) + _entropy(joint.sum(axis=0))
    if entropies == 0:
        return 1.0
    information = entropies - _entropy(joint)
    return float(np.clip(2 * information / entropies, 0, 1))


def adjusted_rand_index(counts: np.ndarray) -> float:
    """Share of pixel pairs that clusters and classes treat alike, corrected for chance.

    ARI = (S - E) / (M - E) with S the pairs that are together in both, E their expectation for random clusters of the
    same sizes and M the mean of the pairs together in either.

    Args:
        counts: (clusters, classes), pixels of each pair.

    Returns:
        At most 1; 0 by chance. NaN without a pixel.

    Source: Hubert and Arabie, Comparing partitions, Journal of Classification 2, 1985.
    """
    # Python's integers: the pairs of a whole data set exceed 64 bits once multiplied.
    exact = np.asarray(counts).astype(object)
    total = exact.sum()
    if total == 0:
        return float('nan')
    together, by_cluster, by_class = (
        sum(n * (n - 1) for n in group) for group in (exact.ravel(), exact.sum(axis=1), exact.sum(axis=0))
    )
    pairs = total * (total - 1)
    # Both sides of the fraction times 2 * pairs.
    numerator = 2 * (together * pairs - by_cluster * by_class)
    denominator = (by_cluster + by_class) * pairs - 2 * by_cluster * by_class
    return 1.0 if denominator == 0 else numerator / denominator


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
