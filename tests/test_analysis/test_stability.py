"""Agreement of two runs: the same tree under other numbers is found, unrelated ones are chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omh_mmseg.analysis.stability import compare_runs

PARENTS = [np.arange(12) // 2, np.arange(24) // 2]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_same_tree_under_other_numbers(seed):
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(size) for size in (6, 12, 24)]
    # Cluster k of the first run is cluster orders[k] of the second one, with as many pixels as there are anywhere.
    joint = [np.diag(generator.integers(1, 99, len(order)))[:, np.argsort(order)] for order in orders]
    places = [np.argsort(order) for order in orders]
    second = [orders[level][own[places[level + 1]]] for level, own in enumerate(PARENTS)]
    levels, pairs = compare_runs(joint, PARENTS, second, permutations=99)
    for level, order in zip(levels, orders):
        np.testing.assert_array_equal(level.partner, order)
        assert level.overlap == level.ari == 1 and level.nmi == pytest.approx(1)
    assert [pair.agreement for pair in pairs] == [1, 1]
    assert all(pair.chance < 0.2 and pair.p_value <= 0.02 for pair in pairs)
    assert [pair.levels for pair in pairs] == [(1, 2), (2, 3)]


def test_unrelated_parents_are_chance():
    generator = np.random.default_rng(0)
    joint = [np.eye(size, dtype=int) * 10 for size in (4, 200)]
    found = [
        compare_runs(joint, [generator.integers(0, 4, 200)], [generator.integers(0, 4, 200)], 200, seed)[1][0]
        for seed in range(20)
    ]
    assert np.mean([one.agreement for one in found]) == pytest.approx(0.25, abs=0.03)
    assert np.mean([one.chance for one in found]) == pytest.approx(0.25, abs=0.01)
    assert 0.3 < np.mean([one.p_value for one in found]) < 0.75


def test_unused_clusters_have_no_partner_and_unmatched_parents_do_not_agree():
    coarse = np.array([[8, 0, 0], [0, 0, 0], [0, 8, 0]])
    fine = np.diag([4, 4, 4, 0])
    levels, (pair,) = compare_runs([coarse, fine], [np.array([0, 1, 2, 2])], [np.array([0, 2, 1, 1])])
    assert levels[0].partner.tolist() == [0, -1, 1] and levels[0].used == (2, 2)
    assert levels[1].partner.tolist() == [0, 1, 2, -1]
    assert pair.compared == 3 and pair.agreement == pytest.approx(2 / 3)
    _, (nothing,) = compare_runs([coarse, np.zeros((4, 4), int)], [np.zeros(4, int)], [np.zeros(4, int)])
    assert nothing.compared == 0 and np.isnan(nothing.agreement) and np.isnan(nothing.p_value)


def test_overlap_is_the_share_of_pixels_in_matched_clusters():
    levels, pairs = compare_runs([np.array([[6, 1], [1, 2]])], [], [])
    assert levels[0].overlap == pytest.approx(0.8) and pairs == []


def test_sizes_must_fit():
    with pytest.raises(ValueError, match=r'parents of \[3\] clusters in the second run do not fit .* \[2, 4\]'):
        compare_runs([np.eye(2, dtype=int), np.eye(4, dtype=int)], [np.zeros(4, int)], [np.zeros(3, int)])
