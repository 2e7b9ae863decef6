from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

from omh_mmseg.engine.hooks import HierarchyHook
from omh_mmseg.models.omh import OMHHead
from omh_mmseg.models.prediction import ClusterAssignment
from omh_mmseg.registry import HOOKS
from omh_mmseg.transport import Hierarchy

HEALTHY = dict(
    omh_used_1=1.0, omh_used_2=0.9, omh_sparsity_12=0.3, omh_parents_mean_12=1.4, omh_parents_max_12=2.0,
    omh_violation_12=0.001, omh_iterations_12=40.0,
)  # fmt: skip


@pytest.fixture
def runner(tmp_path):
    """The part of a runner that the hook looks at, with a head of levels 4 and 8."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = nn.Module()
    model.omh_head = OMHHead(6, 4, num_levels=2, plan=dict(entropy_weight=0.04, max_iterations=700))
    messages = []
    logger = SimpleNamespace(warning=messages.append)
    visualizer = SimpleNamespace(dataset_meta=dict(classes=('sky', 'road', 'grass', 'water'), palette=None))
    return SimpleNamespace(
        model=model, logger=logger, messages=messages, work_dir=str(tmp_path), iter=49, visualizer=visualizer
    )


def hook_with(**options) -> HierarchyHook:
    return HOOKS.build(dict(type='HierarchyHook', **options))


def messages_for(runner, **figures: float) -> list[str]:
    outputs = {key: torch.tensor(value) for key, value in (HEALTHY | figures).items()}
    hook_with().after_train_iter(runner, 0, outputs=outputs)
    return runner.messages


def test_healthy_figures_warn_of_nothing(runner):
    assert messages_for(runner) == []


def test_unused_clusters(runner):
    (message,) = messages_for(runner, omh_used_2=0.25)
    assert message.startswith('OMH level 2: only 2 of 8 clusters are in use.')
    assert 'lower omh_head.match.loss_weight and cluster.loss_weight or raise reach.begin' in message


def test_dense_plan(runner):
    (message,) = messages_for(runner, omh_sparsity_12=0.97, omh_parents_mean_12=3.9)
    assert 'levels 1 and 2: 97% of its entries' in message
    assert '3.9 effective parents of 4' in message
    assert 'try omh_head.plan.entropy_weight=0.02' in message


def test_solver_that_did_not_converge(runner):
    (message,) = messages_for(runner, omh_violation_12=0.2, omh_iterations_12=700.0)
    assert 'levels 1 and 2: its marginals are off by 20.0% after 700 iterations' in message
    assert 'raise omh_head.plan.max_iterations (now 700) or entropy_weight (now 0.04)' in message


def test_several_failures_at_once(runner):
    assert len(messages_for(runner, omh_used_1=0.25, omh_used_2=0.1, omh_sparsity_12=0.9, omh_violation_12=0.5)) == 4


def test_figures_are_those_that_the_head_reports(runner):
    """A head whose plan is dense by its own figures makes the hook speak."""
    head = runner.model.omh_head
    head.plan.entropy_weight = 5.0
    outputs = head.loss(torch.randn(2, 6, 3, 3), 0)
    hook_with().after_train_iter(runner, 0, outputs=outputs)
    assert any('try omh_head.plan.entropy_weight=2.5' in message for message in runner.messages)


def test_only_every_interval(runner):
    collapsed = dict(HEALTHY, omh_used_1=0.1)
    for step in range(20):
        runner.iter = step
        hook_with(interval=10).after_train_iter(runner, 0, outputs=collapsed)
    assert len(runner.messages) == 2


def test_hierarchy_is_written_at_the_end(runner, tmp_path):
    hook_with().after_train(runner)
    assert sorted(file.name for file in tmp_path.iterdir()) == ['hierarchy.json', 'hierarchy.png', 'plans.png']
    written = Hierarchy.from_json(tmp_path / 'hierarchy.json')
    expected = runner.model.omh_head.hierarchy()
    assert written.level_sizes == [4, 8]
    torch.testing.assert_close(written.plans, expected.plans)
    assert len(json.loads((tmp_path / 'hierarchy.json').read_text())['tree']) == 4
    assert all((tmp_path / name).stat().st_size > 1000 for name in ('hierarchy.png', 'plans.png'))


def test_pictures_are_left_to_who_draws_better_ones(runner, tmp_path):
    hook = hook_with()
    hook.draws = False
    hook.after_train(runner)
    assert [file.name for file in tmp_path.iterdir()] == ['hierarchy.json']


def test_chosen_folder(runner, tmp_path):
    hook_with(out_dir=str(tmp_path / 'a' / 'b')).after_train(runner)
    assert (tmp_path / 'a' / 'b' / 'hierarchy.json').is_file()


@pytest.mark.parametrize('head', [None, 'one level', 'absent'])
def test_models_without_a_hierarchy_pass(runner, tmp_path, head):
    if head == 'absent':
        del runner.model.omh_head
    else:
        runner.model.omh_head = None if head is None else OMHHead(in_channels=6, num_classes=4, num_levels=1)
    hook_with().after_train_iter(runner, 0, outputs=dict(HEALTHY))
    hook_with().after_train(runner)
    assert list(tmp_path.iterdir()) == [] and runner.messages == []


def test_wrong_interval():
    with pytest.raises(ValueError, match='interval must be .*; got 0'):
        HierarchyHook(interval=0)


def test_clusters_have_the_names_of_their_classes(runner, monkeypatch):
    """By the assignment that predictions use; a level that was not matched has numbers alone."""
    drawn = {}
    for name in ('draw_hierarchy_tree', 'draw_plan_matrices'):
        target = f'omh_mmseg.engine.hooks.hierarchy_hook.{name}'
        monkeypatch.setattr(target, lambda path, *args, name=name, **options: drawn.setdefault(name, (args, options)))
    hook_with().after_train(runner)
    assert drawn['draw_hierarchy_tree'][1]['names'] == [[None] * 4, [None] * 8]
    drawn.clear()
    runner.model.assignment = ClusterAssignment(dict(pred_sem_seg=4, pred_level1=4, pred_level2=8))
    runner.model.assignment.set('pred_level1', [3, 0, -1, 1])
    runner.visualizer.dataset_meta['palette'] = [[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]]
    hook_with().after_train(runner)
    (_, palettes), options = drawn['draw_hierarchy_tree']
    assert options['names'] == [['water', 'sky', None, 'road'], [None] * 8]
    assert palettes[0][[0, 1, 3]].tolist() == [[4, 4, 4], [1, 1, 1], [2, 2, 2]]
    assert drawn['draw_plan_matrices'][0][1] is palettes
