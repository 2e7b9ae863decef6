"""K-means centres of features or codes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor


def fit_centres(features: np.ndarray, num_clusters: int, seed: int, iterations: int = 50) -> Tensor:
    """K-means centres by ``scipy.cluster.vq.kmeans2`` with k-means++ starts.

    Args:
        features: Shape (N, C).
        num_clusters: K, at most N.
        seed: Of the start.
        iterations: Of Lloyd's algorithm.

    Returns:
        Shape (K, C), float32.

    Raises:
        ValueError: If there are fewer features than clusters.
    """
    if len(features) < num_clusters:
        raise ValueError(f'{len(features)} features for {num_clusters} clusters; draw more positions or images.')
    centres, _ = kmeans2(features, num_clusters, iter=iterations, minit='++', seed=seed)
    return torch.from_numpy(np.ascontiguousarray(centres, np.float32))
