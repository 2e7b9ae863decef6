"""What a cluster is called: one rule for every picture, table and summary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omh_mmseg.evaluation.scores import hungarian_assignment, majority_assignment
from omh_mmseg.structures.assignment import UNMATCHED


def naming_classes(counts: np.ndarray) -> np.ndarray:
    """The class that each cluster is named after, and has the colour of.

    Where there are no more clusters than classes it is that of the one-to-one matching, by which clusters are scored
    and painted, so that no two have one name; with more clusters, the class that most of its pixels have.

    Args:
        counts: Pixels, (clusters, classes).

    Returns:
        int64 (clusters,): ``UNMATCHED`` for a cluster without a pixel.
    """
    counts = np.asarray(counts)
    assign = hungarian_assignment if counts.shape[0] <= counts.shape[1] else majority_assignment
    return np.where(counts.any(axis=1), assign(counts), UNMATCHED)


def cluster_names(assigned: np.ndarray | Sequence[int] | None, classes: Sequence[str], count: int) -> list[str | None]:
    """The name of each cluster, beside its number.

    Args:
        assigned: Class of each cluster, of `naming_classes` or as the checkpoint knows it; None where nothing is known.
        classes: Names of the classes; may be empty.
        count: Number of clusters.

    Returns:
        Names, None for a cluster without a class.
    """
    numbers = [UNMATCHED] * count if assigned is None else [int(number) for number in assigned]
    return [classes[number] if 0 <= number < len(classes) else None for number in numbers]
