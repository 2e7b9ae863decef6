"""Recovery of a known tree: planted ones are perfect, dealt ones are chance, numbers of clusters mean nothing."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omh_mmseg.analysis.trees import (
    agglomerated_parents,
    ancestors_of_finest,
    chance_scores,
    dendrogram_purity,
    merged_counts,
    overlap_parents,
    parent_agreement,
    recovery_scores,
)
from omh_mmseg.datasets import DemoScenes
from omh_mmseg.datasets.scenes import HIERARCHY
from omh_mmseg.structures.granularity import Granularity

LEVELS = DemoScenes.GRANULARITIES
TREE = [HIERARCHY.group_of_object, HIERARCHY.object_of_part]


def planted() -> list[np.ndarray]:
    """Clusters that are the classes of their level, with different numbers of pixels."""
    parts = np.diag(np.arange(10, 34))
    return merged_counts(parts, TREE, [6, 12, 24])


def renumbered(counts, parents, seed):
    """The same tree with shuffled clusters at every level."""
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(level)) for level in counts]
    moved = [level[order] for level, order in zip(counts, orders)]
    places = [np.argsort(order) for order in orders]
    return moved, [places[level][own[orders[level + 1]]] for level, own in enumerate(parents)]


def brute_force_purity(counts, parents):
    """Dendrogram purity pixel pair by pixel pair."""
    ancestors = [*ancestors_of_finest(parents, len(counts))[::-1], np.zeros(len(counts), int)]
    total = pairs = 0.0
    for label in range(counts.shape[1]):
        for p, q in product(range(len(counts)), repeat=2):
            weight = counts[p, label] * counts[q, label]
            if weight:
                below = next(own == own[p] for own in ancestors if own[p] == own[q])
                total += weight * counts[below, label].sum() / counts[below].sum()
                pairs += weight
    return total / pairs


def test_a_planted_tree_is_perfect():
    scores = recovery_scores(planted(), TREE, LEVELS)
    figures = scores.figures()
    assert figures == pytest.approx(dict.fromkeys(figures, 1.0))
    assert set(figures) >= {'agreement', 'agreement_12', 'agreement_23', 'ari_1', 'ari_2', 'purity_1', 'purity_3'}
    assert scores.used == 24


def test_dealt_parents_are_chance():
    scores = chance_scores(planted(), TREE, LEVELS, permutations=100)
    assert len(scores) == 100
    assert np.mean([one.agreement for one in scores]) == pytest.approx(1 / 9, abs=0.04)
    for level in (0, 1):
        assert abs(np.mean([one.ari[level] for one in scores])) < 0.03
    assert np.mean([one.purity[0] for one in scores]) < 0.5
    assert chance_scores(planted(), TREE, LEVELS, permutations=3)[1] == scores[1]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_numbers_of_clusters_mean_nothing(seed):
    generator = np.random.default_rng(seed)
    counts = [generator.integers(1, 50, (size, 24)) for size in (6, 12, 24)]
    parents = [generator.integers(0, 6, 12), generator.integers(0, 12, 24)]
    # A tie between classes would be broken by number.
    counts = [level * 1000 + generator.permutation(level.size).reshape(level.shape) for level in counts]
    figures = recovery_scores(counts, parents, LEVELS).figures()
    assert recovery_scores(*renumbered(counts, parents, seed), LEVELS).figures() == pytest.approx(figures)


def test_figures_count_what_they_say():
    halves = Granularity('coarse', ('x', 'y'), np.array([0, 0, 1, 1]))
    levels = [halves, Granularity('fine', tuple('abcd'), np.arange(4))]
    fine, coarse = np.diag([1, 2, 3, 94]), np.array([[1, 2, 0, 0], [0, 0, 3, 94]])
    scores = recovery_scores([coarse, fine], [np.array([0, 0, 1, 0])], levels)
    # The largest cluster has the wrong parent; with it, that parent's children are mostly of the other class.
    assert scores.agreement == 0.75 and scores.pixel_agreement == pytest.approx(0.06)
    assert scores.merged_agreement == 0.5
    assert scores.pair_agreement == (0.75,)
    assert scores.ari[0] == pytest.approx(0.0)


def test_unused_clusters_do_not_count():
    counts = planted()
    counts[2][5] = 0
    scores = recovery_scores(counts, [TREE[0], np.where(np.arange(24) == 5, 0, TREE[1])], LEVELS)
    assert scores.used == 23 and scores.agreement == scores.ari[0] == scores.purity[0] == 1


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r'levels of \[6, 12, 24\] clusters, parents of \[12\] clusters'):
        recovery_scores(planted(), TREE[:1], LEVELS)
    with pytest.raises(ValueError, match='at least two levels'):
        recovery_scores(planted()[:1], [], LEVELS[:1])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_dendrogram_purity_is_that_of_pairs_of_pixels(seed, depth):
    generator = np.random.default_rng(seed)
    sizes = [2, 4, 7][2 - depth :]
    parents = [generator.integers(0, a, b) for a, b in zip(sizes, sizes[1:])]
    counts = generator.integers(0, 4, (7, 3))
    counts[0, 0] += 1
    assert dendrogram_purity(counts, parents) == pytest.approx(brute_force_purity(counts, parents))


def test_dendrogram_purity_at_its_ends():
    assert dendrogram_purity(np.diag([3, 5]), [np.array([0, 1])]) == 1
    assert dendrogram_purity(np.array([[5, 5]]), []) == 0.5
    assert np.isnan(dendrogram_purity(np.zeros((2, 2)), []))


@pytest.mark.parametrize('linkage', ['average', 'ward'])
def test_agglomeration_finds_planted_families(linkage):
    generator = np.random.default_rng(0)
    groups = np.linalg.qr(generator.normal(size=(16, 16)))[0][:3]
    objects = np.repeat(groups, 2, axis=0) + 0.3 * np.linalg.qr(generator.normal(size=(16, 16)))[0][:6]
    parts = np.repeat(objects, 2, axis=0) + 0.05 * generator.normal(size=(12, 16))
    order = generator.permutation(12)
    lengths = generator.uniform(0.1, 10, (12, 1))
    parents = agglomerated_parents((parts * lengths)[order], [3, 6, 12], linkage)
    roots, middle, _ = ancestors_of_finest(parents, 12)
    for found, expected in ((middle, order // 2), (roots, order // 4)):
        np.testing.assert_array_equal(found[:, None] == found, expected[:, None] == expected)


def test_agglomeration_at_equal_sizes_and_its_errors():
    centres = np.random.default_rng(0).normal(size=(4, 5))
    (same,) = agglomerated_parents(centres, [4, 4])
    assert sorted(same.tolist()) == [0, 1, 2, 3]
    assert agglomerated_parents(centres[:1], [1, 1])[0].tolist() == [0]
    with pytest.raises(ValueError, match="linkage must be one of .*; got 'single'"):
        agglomerated_parents(centres, [2, 4], 'single')
    for sizes in ([2, 3], [5, 4], []):
        with pytest.raises(ValueError, match='sizes must grow to the 4 centres'):
            agglomerated_parents(centres, sizes)


def test_overlap_and_merged_counts():
    assert overlap_parents([np.array([[5, 0, 2], [1, 9, 3]])])[0].tolist() == [0, 1, 1]
    finest = np.array([[1, 0], [2, 0], [0, 4]])
    middle, last = merged_counts(finest, [np.array([1, 0, 0])], [3, 3])
    assert middle.tolist() == [[2, 4], [1, 0], [0, 0]] and last.tolist() == finest.tolist()


# ---- parents of one pair of levels

TRUE_PARENTS = np.array([0, 0, 1, 1])


def majorities(majority: list[int], classes: int) -> np.ndarray:
    table = np.ones((len(majority), classes), int)
    table[np.arange(len(majority)), majority] = 10
    return table


def test_perfect_hierarchy_with_renamed_clusters() -> None:
    result = parent_agreement(majorities([3, 0, 2, 1], 4), majorities([1, 0], 2), np.array([0, 1, 0, 1]), TRUE_PARENTS)
    assert result.agreement == 1 and result.chance == 0.5


def test_one_wrong_parent() -> None:
    result = parent_agreement(majorities([3, 0, 2, 1], 4), majorities([1, 0], 2), np.array([0, 1, 1, 1]), TRUE_PARENTS)
    assert result.agreement == 0.75
    assert result.agreeing.tolist() == [True, True, False, True]
    assert result.chance == pytest.approx((2 * 0.25 + 2 * 0.75) / 4)


def test_a_plan_with_one_big_parent_is_no_better_than_chance() -> None:
    result = parent_agreement(majorities([0, 1, 1, 2], 4), majorities([0, 1], 2), np.zeros(4, int), TRUE_PARENTS)
    assert result.agreement == result.chance == 0.75


def test_unused_clusters_have_no_parents() -> None:
    fine = majorities([0, 2, 3, 1], 4)
    fine[1] = 0
    result = parent_agreement(fine, majorities([0, 1], 2), np.array([0, 0, 1, 0]), TRUE_PARENTS)
    assert result.agreement == 1
    assert result.used.tolist() == [True, False, True, True]
    nothing = parent_agreement(np.zeros((4, 4)), majorities([0, 1], 2), np.zeros(4, int), TRUE_PARENTS)
    assert np.isnan(nothing.agreement) and np.isnan(nothing.chance)


def test_parents_must_fit() -> None:
    with pytest.raises(ValueError, match=r'\(4, 4\) and \(2, 2\) do not fit 3 parents'):
        parent_agreement(majorities([0, 1, 2, 3], 4), majorities([0, 1], 2), np.zeros(3, int), TRUE_PARENTS)
    with pytest.raises(ValueError, match='largest 2'):
        parent_agreement(majorities([0, 1, 2, 3], 4), majorities([0, 1], 2), np.array([0, 1, 2, 0]), TRUE_PARENTS)
