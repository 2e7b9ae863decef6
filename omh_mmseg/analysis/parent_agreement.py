"""How far a learned hierarchy agrees with a known one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ParentAgreement:
    """Agreement of the plan's parents with the true ones.

    Attributes:
        agreement: Share of the used finer clusters whose plan parent stands for the true parent of the class that
            they stand for, in [0, 1]; NaN if none is used.
        chance: The same, expected if the plan's parents were dealt to the finer clusters at random.
        agreeing: Whether each finer cluster agrees, shape (K_fine,); False where unused.
        used: Whether each finer cluster and its parent have pixels, shape (K_fine,).
    """

    agreement: float
    chance: float
    agreeing: np.ndarray
    used: np.ndarray


def parent_agreement(
    fine_counts: np.ndarray, coarse_counts: np.ndarray, parents: np.ndarray, true_parents: np.ndarray
) -> ParentAgreement:
    """Compare plan parents with a true hierarchy.

    Each cluster stands for the class that most of its pixels have. Dealing the plan's own parents at random, rather
    than uniform ones, keeps a plan that gives every cluster to one big parent from looking good.

    Args:
        fine_counts: Pixels per finer cluster and true finer class, shape (K_fine, classes).
        coarse_counts: Pixels per coarser cluster and true coarser class, shape (K_coarse, coarse classes).
        parents: Plan parent of each finer cluster, shape (K_fine,).
        true_parents: Coarser class of each finer class, shape (classes,).

    Raises:
        ValueError: If the shapes do not fit.
    """
    fine_counts, coarse_counts = np.asarray(fine_counts), np.asarray(coarse_counts)
    parents, true_parents = np.asarray(parents), np.asarray(true_parents)
    if (
        fine_counts.shape != (len(parents), len(true_parents))
        or coarse_counts.ndim != 2
        or parents.max(initial=-1) >= len(coarse_counts)
        or true_parents.max(initial=-1) >= coarse_counts.shape[1]
    ):
        raise ValueError(
            f'Counts of shapes {fine_counts.shape} and {coarse_counts.shape} do not fit {len(parents)} parents '
            f'(largest {parents.max(initial=-1)}) and {len(true_parents)} true parents '
            f'(largest {true_parents.max(initial=-1)}).'
        )
    used = (fine_counts.sum(1) > 0) & (coarse_counts.sum(1) > 0)[parents]
    if not used.any():
        return ParentAgreement(float('nan'), float('nan'), np.zeros(len(parents), bool), used)
    expected = true_parents[fine_counts.argmax(1)]
    given = coarse_counts.argmax(1)[parents]
    agreeing = used & (expected == given)
    chance = (expected[used][:, None] == given[used][None, :]).mean()
    return ParentAgreement(float(agreeing[used].mean()), float(chance), agreeing, used)
