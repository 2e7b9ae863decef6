"""The demo's comparison with the known hierarchy, its pictures' inputs and its report."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omh_mmseg.analysis.trees import merged_counts
from omh_mmseg.datasets import DemoScenes
from omh_mmseg.datasets.demo_scenes import HIERARCHY
from omh_mmseg.study import demo
from omh_mmseg.transport import Hierarchy

LEVELS = DemoScenes.GRANULARITIES


def true_hierarchy() -> Hierarchy:
    plans = []
    for parents in map(torch.as_tensor, (HIERARCHY.group_of_object, HIERARCHY.object_of_part)):
        plans.append(torch.nn.functional.one_hot(parents).double().t() / len(parents))
    return Hierarchy.from_plans([plan.shape[0] for plan in plans] + [plans[-1].shape[1]], plans)


def test_the_true_tree_agrees_wholly_and_a_shifted_one_does_not() -> None:
    hierarchy = true_hierarchy()
    parents = [level.numpy() for level in hierarchy.parents]
    counts = merged_counts(np.diag(np.arange(1, 25)), parents, hierarchy.level_sizes)
    perfect = demo.compare_with_truth(hierarchy, counts, LEVELS)
    assert perfect['parent_agreement'] == 1 and [pair['parent_agreement'] for pair in perfect['pairs']] == [1, 1]
    assert perfect['chance'] < 0.3 and perfect['pairs'][1]['levels'] == [2, 3]
    shifted = Hierarchy(hierarchy.level_sizes, [plan.roll(1, 0) for plan in hierarchy.plans])
    assert demo.compare_with_truth(shifted, counts, LEVELS)['parent_agreement'] == 0


def test_report_names_every_figure() -> None:
    heads = dict(
        probe=dict(mIoU=12.34, aAcc=56.78), linear=dict(mIoU=40.0, aAcc=70.0), level1=dict(mIoU=21.0, aAcc=43.0)
    )
    text = demo.report(
        dict(
            host={name: heads[name] for name in ('probe', 'linear')},
            omh=heads,
            host_refit=dict(probe=dict(mIoU=14.91, aAcc=57.0)),
            omh_refit=dict(probe=dict(mIoU=15.92, aAcc=58.0), level1=dict(mIoU=22.93, aAcc=46.0)),
            hierarchy=dict(parent_agreement=0.625, chance=0.25),
            protocols=[
                dict(
                    protocol=dict(name='stego-128', crf=True, flip=False), seconds=1.5,
                    scores={'probe/mIoU': 33.21, 'probe/NMI': 0.5},
                )  # fmt: skip
            ],
            pictures=['a.png', 'b.png'],
            page='report/index.html',
            seed=3,
            seconds=99.5,
        )
    )
    scores = ('12.3', '56.8', '21.0', '43.0', '62%', '25%', '14.9', '15.9', '22.9')
    files = ('a.png', 'b.png', 'report/index.html')
    for part in (*scores, *files, 'seed 3', '100 seconds'):
        assert part in text
    assert 'stego-128  yes  no' in text and '33.21' in text


def test_models_without_three_levels_are_refused() -> None:
    model = type('Model', (), dict(omh_head=None))()
    with pytest.raises(ValueError, match='needs model.omh_head with 3 levels'):
        demo.check_levels(model, LEVELS)
