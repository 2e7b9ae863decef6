"""The mathematics of recovery: how well a learned tree of clusters agrees with a known tree of classes.

A tree is a list of parents: per level pair, coarsest first, the number of the coarser cluster that each finer one
belongs to. Labels are those of the finest granularity; each level of clusters is compared at the granularity that it
stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.cluster.hierarchy import cut_tree
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.spatial.distance import pdist

from omh_mmseg.evaluation.scores import adjusted_rand_index
from omh_mmseg.structures.granularity import Granularity

LINKAGES = ('average', 'ward')
Parents = Sequence[np.ndarray]


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

    Each cluster stands for the class that most of its pixels have. Dealing the plan's parents at random, rather than
    uniform ones, keeps a plan that gives every cluster to one big parent from looking good.

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


@dataclass(frozen=True)
class RecoveryScores:
    """Agreement of a tree of clusters with a tree of classes; all figures are 1 for a perfect one.

    Attributes:
        agreement: Share of the used finer clusters of all level pairs whose parent stands for the right class, in
            [0, 1]; a parent stands for the class that most of its predictions have, see `parent_agreement`.
        merged_agreement: The same with a parent standing for the class that most pixels of its children have: the
            predictions of the coarser level play no part, as for a tree that is built from the finest level upwards.
        pixel_agreement: ``agreement`` with each finer cluster weighing as much as it has pixels.
        pair_agreement: ``agreement`` by level pair.
        ari: Per level but the finest, the adjusted Rand index between two partitions of the used finest clusters: by
            ancestor at that level, and by the class of their majority label. 0 by chance.
        purity: Dendrogram purity at the granularity of each level, see `dendrogram_purity`; 1 needs pure finest
            clusters, too.
        used: Number of finest clusters with pixels.
    """

    agreement: float
    merged_agreement: float
    pixel_agreement: float
    pair_agreement: tuple[float, ...]
    ari: tuple[float, ...]
    purity: tuple[float, ...]
    used: int

    def figures(self) -> dict[str, float]:
        """The scores as one flat row: ``agreement``, ``agreement_12``, ..., ``ari_1``, ..., ``purity_1``, ..."""
        row = dict(
            agreement=self.agreement, pixel_agreement=self.pixel_agreement, merged_agreement=self.merged_agreement
        )
        row |= {f'agreement_{level}{level + 1}': value for level, value in enumerate(self.pair_agreement, start=1)}
        for name in ('ari', 'purity'):
            row |= {f'{name}_{level}': value for level, value in enumerate(getattr(self, name), start=1)}
        return row


def pair_agreements(
    counts: Sequence[np.ndarray], parents: Parents, granularities: Sequence[Granularity]
) -> list[ParentAgreement]:
    """`parent_agreement` of each pair of levels; see `recovery_scores`."""
    sizes, children = [len(level) for level in counts], [len(level) for level in parents]
    if len(sizes) < 2 or len(granularities) != len(sizes) or children != sizes[1:]:
        raise ValueError(
            f'levels of {sizes} clusters, parents of {children} clusters and {len(granularities)} granularities do not '
            'fit; at least two levels are needed'
        )
    return [
        parent_agreement(fine.merge(counts[level + 1]), coarse.merge(counts[level]), parents[level],
                         fine.parents_in(coarse))
        for level, (coarse, fine) in enumerate(pairwise(granularities))
    ]  # fmt: skip


def recovery_scores(
    counts: Sequence[np.ndarray], parents: Parents, granularities: Sequence[Granularity]
) -> RecoveryScores:
    """Compare a tree of clusters with a tree of classes.

    Args:
        counts: Per level, coarsest first, the pixels of each cluster and finest label, (K_l, finest labels).
        parents: Per level pair the parent of each finer cluster, (K_{l+1},).
        granularities: Per level the classes that its clusters stand for, never getting coarser.

    Raises:
        ValueError: Fewer than two levels, numbers of levels or clusters that do not fit, or a class of a finer
            granularity in several classes of a coarser one.
    """
    counts, parents = [np.asarray(level) for level in counts], [np.asarray(level) for level in parents]
    pairs = pair_agreements(counts, parents, granularities)
    finest = counts[-1]
    ancestors = ancestors_of_finest(parents, len(finest))
    merged = merged_counts(finest, parents, [len(level) for level in counts])
    leaf = granularities[-1]
    leaf_counts = leaf.merge(finest)
    used = leaf_counts.any(axis=1)
    majority = leaf_counts[used].argmax(axis=1)
    ari = []
    for coarse, level in zip(granularities[:-1], ancestors):
        table = np.zeros((level.max() + 1, len(coarse.classes)), dtype=np.int64)
        np.add.at(table, (level[used], leaf.parents_in(coarse)[majority]), 1)
        ari.append(adjusted_rand_index(table))
    pixels = [fine.merge(table).sum(axis=1) for fine, table in zip(granularities[1:], counts[1:])]
    return RecoveryScores(
        agreement=pooled_agreement(pairs),
        merged_agreement=pooled_agreement(pair_agreements(merged, parents, granularities)),
        pixel_agreement=pooled_agreement(pairs, pixels),
        pair_agreement=tuple(pair.agreement for pair in pairs),
        ari=tuple(ari),
        purity=tuple(dendrogram_purity(level.merge(finest), parents) for level in granularities),
        used=int(used.sum()),
    )


def chance_scores(
    counts: Sequence[np.ndarray],
    parents: Parents,
    granularities: Sequence[Granularity],
    permutations: int = 200,
    seed: int = 0,
) -> list[RecoveryScores]:
    """Scores of trees whose parents are dealt to the clusters at random, the numbers of children kept.

    Args:
        counts: See `recovery_scores`.
        parents: See `recovery_scores`.
        granularities: See `recovery_scores`.
        permutations: Number of trees.
        seed: Of the deals.
    """
    generator = np.random.default_rng(seed)
    return [
        recovery_scores(counts, [generator.permutation(level) for level in parents], granularities)
        for _ in range(permutations)
    ]


def ancestors_of_finest(parents: Parents, finest: int) -> list[np.ndarray]:
    """Per level, coarsest first, the ancestor of each of the finest clusters; the last level's are themselves."""
    ancestors = [np.arange(finest)]
    for level in reversed(parents):
        ancestors.insert(0, np.asarray(level)[ancestors[0]])
    return ancestors


def dendrogram_purity(counts: np.ndarray, parents: Parents) -> float:
    """Expected purity of the smallest subtree that holds two random pixels of the same class.

    With n_vc pixels of class c below node v and the lowest common ancestor v(p, q) of the clusters of pixels p and q,

    ``DP = (1 / sum_c N_c^2) sum_c sum_{p, q of class c} n_{v(p, q), c} / n_{v(p, q)}``

    over ordered pairs. A root joins the coarsest clusters; pixels of the same cluster meet in it.

    Args:
        counts: Pixels of each finest cluster and class, (K, classes).
        parents: Per level pair the parent of each finer cluster.

    Returns:
        In (0, 1]; NaN without a pixel.

    Source: Heller and Ghahramani, Bayesian hierarchical clustering, ICML 2005.
    """
    table = np.asarray(counts, dtype=np.float64)
    totals = table.sum(axis=0)
    pairs = (totals**2).sum()
    if pairs == 0:
        return float('nan')
    sizes = [int(np.max(parents[0])) + 1, *map(len, parents)] if len(parents) else [len(table)]
    upwards = [np.arange(sizes[-1]), *map(np.asarray, reversed(parents)), np.zeros(sizes[0], dtype=np.int64)]
    expected, met = 0.0, np.zeros_like(table)
    for level, size in zip(upwards, [*reversed(sizes), 1]):
        table, met = _sum_by(table, level, size), _sum_by(met, level, size)
        pixels = table.sum(axis=1, keepdims=True)
        purity = np.divide(table, pixels, out=np.zeros_like(table), where=pixels > 0)
        # Pairs that meet in this very node: all pairs below it but those that met further down.
        expected += ((table**2 - met) * purity).sum()
        met = table**2
    return float(expected / pairs)


def agglomerated_parents(centres: np.ndarray, sizes: Sequence[int], linkage: str = 'average') -> list[np.ndarray]:
    """Tree by agglomerative clustering of the finest centres, cut at the sizes of the coarser levels.

    Args:
        centres: (K_N, D); directions matter, lengths do not.
        sizes: K_1 .. K_N, coarsest first, the last one that of the centres.
        linkage: ``'average'`` (of cosine distances) or ``'ward'`` (of Euclidean ones between unit centres).

    Returns:
        Per level pair the parent of each finer cluster.

    Raises:
        ValueError: An unknown linkage, or sizes that do not fit the centres.
    """
    if linkage not in LINKAGES:
        raise ValueError(f'linkage must be one of {LINKAGES}; got {linkage!r}')
    centres = np.asarray(centres, dtype=np.float64)
    if not sizes or sizes[-1] != len(centres) or any(b < a for a, b in pairwise(sizes)) or sizes[0] < 1:
        raise ValueError(f'sizes must grow to the {len(centres)} centres; got {list(sizes)}')
    if len(centres) < 2:
        return [np.zeros(1, dtype=np.int64) for _ in sizes[1:]]
    unit = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), np.finfo(float).tiny)
    distances = pdist(unit, 'cosine').clip(min=0) if linkage == 'average' else pdist(unit)
    cuts = cut_tree(scipy_linkage(distances, linkage), n_clusters=list(sizes[:-1])).T  # (levels - 1, K_N)
    labels = [*cuts, np.arange(len(centres))]
    parents = []
    for size, coarse, fine in zip(sizes[1:], labels, labels[1:]):
        of_fine = np.zeros(size, dtype=np.int64)
        of_fine[fine] = coarse
        parents.append(of_fine)
    return parents


def overlap_parents(overlaps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Tree by the predictions: the parent of a finer cluster is the coarser one that most of its pixels lie in.

    Args:
        overlaps: Per level pair the pixels of each coarser and finer cluster, (K_l, K_{l+1}).
    """
    return [np.asarray(table).argmax(axis=0) for table in overlaps]


def merged_counts(finest: np.ndarray, parents: Parents, sizes: Sequence[int]) -> list[np.ndarray]:
    """Counts of all levels of a tree that has no predictions but those of its finest clusters.

    Args:
        finest: Pixels of each finest cluster and label, (K_N, labels).
        parents: Per level pair the parent of each finer cluster.
        sizes: K_1 .. K_N.
    """
    ancestors = ancestors_of_finest(parents, sizes[-1])
    return [_sum_by(np.asarray(finest), level, size) for level, size in zip(ancestors, sizes)]


def pooled_agreement(pairs: Sequence[ParentAgreement], weights: Sequence[np.ndarray] | None = None) -> float:
    """Share of agreeing ones among the used clusters of all level pairs, each of weight 1 by default."""
    used = np.concatenate([pair.used for pair in pairs])
    agreeing = np.concatenate([pair.agreeing for pair in pairs])
    if not used.any():
        return float('nan')
    return float(np.average(agreeing[used], weights=None if weights is None else np.concatenate(weights)[used]))


def _sum_by(table: np.ndarray, groups: np.ndarray, size: int) -> np.ndarray:
    """Sum the rows of a table by group: (size, columns)."""
    total = np.zeros((size, table.shape[1]), dtype=table.dtype)
    np.add.at(total, groups, table)
    return total
