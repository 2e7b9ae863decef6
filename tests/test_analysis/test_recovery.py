"""Which labels levels stand for, and the plan against other methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omh_mmseg.analysis import recovery as hierarchy_recovery
from omh_mmseg.analysis.level_counts import LevelCounts
from omh_mmseg.analysis.recovery import RecoveryOptions, figure_titles, gains, levels_as_labels, plan_method
from omh_mmseg.analysis.trees import merged_counts
from omh_mmseg.datasets import Cityscapes27, DemoScenes
from omh_mmseg.datasets.scenes import HIERARCHY
from omh_mmseg.transport import Hierarchy

LEVELS = DemoScenes.GRANULARITIES
PLAN = plan_method('usage')


def test_levels_stand_for_the_nearest_labels_or_the_named_ones():
    assert [one.name for one in levels_as_labels([6, 12, 24], LEVELS)] == ['group', 'object', 'part']
    assert [one.name for one in levels_as_labels([6, 12], LEVELS, ['group', 'part'])] == ['group', 'part']
    titles = figure_titles(levels_as_labels([27, 54], Cityscapes27.GRANULARITIES), Cityscapes27.GRANULARITIES)
    assert 'ari_1' in titles and 'ari_2' not in titles
    assert titles['purity_1'] == 'purity of the tree, class' and 'purity_2' not in titles


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['group', 'part'], r"--labels takes one of \['group', 'object', 'part'\] for each of 3 levels"),
        (['group', 'thing', 'part'], '--labels takes one of'),
        (['part', 'object', 'part'], 'must not get coarser'),
    ],
)
def test_wrong_labels(names, message):
    with pytest.raises(ValueError, match=message):
        levels_as_labels([6, 12, 24], LEVELS, names)


def test_one_granularity_holds_no_tree():
    with pytest.raises(ValueError, match=r'labels of one granularity \(part\) hold no tree; group the classes'):
        levels_as_labels([6, 12], LEVELS[-1:])


def test_gains_are_run_by_run():
    rows = [
        dict(model='OMH', run=run, clusters=clusters, parents=parents, ari_1=value)
        for run, values in (('a', (0.5, 0.2, 0.1)), ('b', (0.7, 0.2, 0.5)))
        for (clusters, parents), value in zip((('learned', PLAN), ('learned', 'ward'), ('k-means', PLAN)), values)
    ]
    rows.append(dict(model='control', run='a', clusters='learned', parents=PLAN, ari_1=0.0))
    ward, kmeans = gains(rows, ['ari_1'])
    assert (ward['parents'], ward['runs'], ward['ari_1']) == ('ward', 2, pytest.approx(0.4))
    assert kmeans['clusters'] == 'k-means'
    assert (kmeans['ari_1'], kmeans['ari_1 spread']) == pytest.approx((0.3, 0.02**0.5))


def test_every_method_finds_a_planted_tree():
    plans = []
    for parents in (HIERARCHY.group_of_object, HIERARCHY.object_of_part):
        one_hot = torch.nn.functional.one_hot(torch.as_tensor(parents)).double().t()
        plans.append(one_hot / one_hot.sum())
    tree = [HIERARCHY.group_of_object, HIERARCHY.object_of_part]
    counts = merged_counts(np.diag(np.full(24, 9)), tree, [6, 12, 24])
    overlaps = [np.asarray(plan) * 100 for plan in plans]
    axes = np.eye(42)
    finest = axes[:24] + 2 * axes[24:36][tree[1]] + 4 * axes[36:][tree[0][tree[1]]]
    hierarchy = Hierarchy.from_plans([6, 12, 24], plans)
    counted = LevelCounts(counts, overlaps, counts[0], dict(uniform=hierarchy, usage=hierarchy))
    rows = {
        row['parents']: row
        for row in hierarchy_recovery._score_methods(counted, finest, LEVELS, RecoveryOptions(permutations=50))
    }
    assert list(rows) == [PLAN, plan_method('uniform'), 'overlap', 'average', 'ward', 'chance']
    for name in (PLAN, 'overlap', 'average', 'ward'):
        assert rows[name]['agreement'] == rows[name]['ari_1'] == rows[name]['purity_2'] == 1, name
        assert (rows[name]['used'], rows[name]['finest']) == (24, 24)
    assert rows['chance']['agreement'] < 0.2 and abs(rows['chance']['ari_1']) < 0.1
    assert rows[PLAN]['p_agreement'] == pytest.approx(1 / 51) and 'p_agreement' not in rows['ward']
