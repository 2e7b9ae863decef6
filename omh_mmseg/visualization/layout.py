"""In which order the clusters of a hierarchy are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from omh_mmseg.transport import Hierarchy


def parent_shares(hierarchy: Hierarchy) -> list[np.ndarray]:
    """Give, per plan, how each finer cluster's mass is spread over the coarser ones.

    Returns:
        (K_{l+1}, K_l) per plan, rows sum to 1: the row-conditioned plan of docs/methods/omh.md 2.4 with the finer level
        as rows.
    """
    shares = []
    for plan in hierarchy.plans:
        transposed = plan.numpy().astype(np.float64).T
        mass = transposed.sum(axis=1, keepdims=True)
        shares.append(np.divide(transposed, mass, out=np.zeros_like(transposed), where=mass > 0))
    return shares


def cluster_order(hierarchy: Hierarchy) -> list[np.ndarray]:
    """Order each level so that children stand where their parents stand.

    Level 1 keeps its numbers. Among siblings, the one that belongs to its parent most comes first.

    Returns:
        Per level the cluster numbers in drawing order.
    """
    orders = [np.arange(hierarchy.level_sizes[0])]
    for tensor, shares in zip(hierarchy.parents, parent_shares(hierarchy), strict=True):
        parents = tensor.numpy()
        position = np.argsort(orders[-1])[parents]
        orders.append(np.lexsort((-shares[np.arange(len(parents)), parents], position)))
    return orders
