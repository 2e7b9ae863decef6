"""Agreement of learned parents with a known tree."""

from __future__ import annotations

import numpy as np
import pytest

from omh_mmseg.analysis.parent_agreement import parent_agreement

TRUE_PARENTS = np.array([0, 0, 1, 1])


def counts(majority: list[int], classes: int) -> np.ndarray:
    table = np.ones((len(majority), classes), int)
    table[np.arange(len(majority)), majority] = 10
    return table


def test_perfect_hierarchy_with_renamed_clusters() -> None:
    result = parent_agreement(counts([3, 0, 2, 1], 4), counts([1, 0], 2), np.array([0, 1, 0, 1]), TRUE_PARENTS)
    assert result.agreement == 1 and result.chance == 0.5


def test_one_wrong_parent() -> None:
    result = parent_agreement(counts([3, 0, 2, 1], 4), counts([1, 0], 2), np.array([0, 1, 1, 1]), TRUE_PARENTS)
    assert result.agreement == 0.75
    assert result.agreeing.tolist() == [True, True, False, True]
    assert result.chance == pytest.approx((2 * 0.25 + 2 * 0.75) / 4)


def test_a_plan_with_one_big_parent_is_no_better_than_chance() -> None:
    result = parent_agreement(counts([0, 1, 1, 2], 4), counts([0, 1], 2), np.zeros(4, int), TRUE_PARENTS)
    assert result.agreement == result.chance == 0.75


def test_unused_clusters_do_not_count() -> None:
    fine = counts([0, 2, 3, 1], 4)
    fine[1] = 0
    result = parent_agreement(fine, counts([0, 1], 2), np.array([0, 0, 1, 0]), TRUE_PARENTS)
    assert result.agreement == 1
    assert result.used.tolist() == [True, False, True, True]
    nothing = parent_agreement(np.zeros((4, 4)), counts([0, 1], 2), np.zeros(4, int), TRUE_PARENTS)
    assert np.isnan(nothing.agreement) and np.isnan(nothing.chance)


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match=r'\(4, 4\) and \(2, 2\) do not fit 3 parents'):
        parent_agreement(counts([0, 1, 2, 3], 4), counts([0, 1], 2), np.zeros(3, int), TRUE_PARENTS)
    with pytest.raises(ValueError, match='largest 2'):
        parent_agreement(counts([0, 1, 2, 3], 4), counts([0, 1], 2), np.array([0, 1, 2, 0]), TRUE_PARENTS)
