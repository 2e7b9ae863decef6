"""Trees by plans of several marginals, where a parent of three children and one of a single child are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from omh_mmseg.analysis.level_counts import LevelCounts
from omh_mmseg.analysis.plan_trees import plan_trees, usage_shares
from omh_mmseg.analysis.recovery import RecoveryOptions, _score_methods, plan_method
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.transport import Hierarchy

# Children of the two parents, on the circle: three round the first, one near the second.
PARENTS = [0, 0, 0, 1]
ANGLES = [-0.3, 0.0, 0.3, 1.6]
OVERLAPS = [np.array([[30, 25, 20, 0], [0, 0, 0, 25]])]


def on_circle(angles: list[float]) -> torch.Tensor:
    return torch.stack([torch.tensor(angles).cos(), torch.tensor(angles).sin()], 1)


def head(marginal: str = 'uniform') -> SimpleNamespace:
    plans = [torch.full((2, 4), 1 / 8)]
    return SimpleNamespace(
        centres=[on_circle([0.0, 1.6]), on_circle(ANGLES)],
        plan=SimpleNamespace(entropy_weight=0.05, marginal=marginal),
        hierarchy=lambda: Hierarchy.from_plans([2, 4], plans),
    )  # fmt: skip


def test_usage_finds_three_children_and_one_where_uniform_marginals_deal_two_each():
    trees = plan_trees(head(), OVERLAPS)
    assert list(trees) == ['usage', 'uniform']
    assert trees['usage'].parents[0].tolist() == PARENTS
    assert torch.bincount(trees['uniform'].parents[0]).tolist() == [2, 2]


def test_recovery_shows_both():
    levels = [Granularity('half', ('a', 'b'), np.array([0, 0, 0, 1])), Granularity('all', tuple('wxyz'), np.arange(4))]
    counts = [np.array([[30, 25, 20, 0], [0, 0, 0, 25]]), np.diag([30, 25, 20, 25])]
    counted = LevelCounts(counts, OVERLAPS, counts[0], plan_trees(head(), OVERLAPS))
    for marginals in ('usage', 'uniform'):
        options = RecoveryOptions(permutations=5, marginals=marginals)
        rows = {row['parents']: row for row in _score_methods(counted, on_circle(ANGLES).numpy(), levels, options)}
        assert rows[plan_method('usage')]['agreement'] == 1
        assert rows[plan_method('uniform')]['agreement'] == 0.75
        assert [name for name in rows if 'p_agreement' in rows[name]] == [plan_method(marginals)]


def test_a_head_with_other_marginals_keeps_its_own_tree_beside_them():
    trees = plan_trees(head('activation'), OVERLAPS)
    assert list(trees) == ['usage', 'uniform', 'activation']
    assert trees['activation'].plans[0].eq(1 / 8).all()


def test_shares_of_an_empty_cluster_and_of_none():
    coarse, fine = usage_shares([np.array([[3, 0, 1], [0, 0, 4]])])
    torch.testing.assert_close(coarse, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert 0 < fine[1] < 1e-3 and float(fine.sum()) == pytest.approx(1)
    assert usage_shares([]) == []
    with pytest.raises(ValueError, match='no pixel was counted'):
        usage_shares([np.zeros((2, 3), int)])
