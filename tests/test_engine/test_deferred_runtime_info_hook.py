from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.logging import MessageHub

from omh_mmseg.engine.hooks import DeferredRuntimeInfoHook, deferred_runtime_info_hook
from omh_mmseg.registry import HOOKS


def runner_of(steps: int) -> tuple[SimpleNamespace, list[tuple[str, float]]]:
    entered: list[tuple[str, float]] = []
    hub = SimpleNamespace(update_scalar=lambda name, value: entered.append((name, float(value))))
    runner = SimpleNamespace(
        hooks=[LoggerHook(interval=4)], max_iters=steps, iter=0, message_hub=hub, train_dataloader=range(100)
    )
    return runner, entered


def run(hook: DeferredRuntimeInfoHook, steps: int) -> list[int]:
    """Numbers of figures entered after each step; in the end those of all steps, in their order."""
    runner, entered = runner_of(steps)
    counts = []
    for step in range(steps):
        runner.iter = step
        hook.after_train_iter(runner, step, outputs=dict(loss=torch.tensor(float(step)), omh_violation_12=0.5))
        counts.append(len(entered))
    figures = ('train/loss', 'train/omh_violation_12')
    assert entered == [pair for step in range(steps) for pair in zip(figures, (step, 0.5))]
    return counts


def test_a_config_with_parts_out_of_date_is_refused(monkeypatch):
    """Whatever visualizer it has."""
    recorded = []
    monkeypatch.setattr(RuntimeInfoHook, 'before_run', lambda _, runner: recorded.append(runner))
    config = Config(dict(data_root='b', _copied=dict(data_root='a'), val_dataloader=dict(dataset=dict(data_root='a'))))
    hook = DeferredRuntimeInfoHook()
    with pytest.raises(ValueError, match=r'data_root .* cannot reach .*: val_dataloader\.dataset\.data_root=b$'):
        hook.before_run(SimpleNamespace(cfg=config))
    config.val_dataloader.dataset.data_root = 'b'
    assert recorded == []
    hook.before_run(runner := SimpleNamespace(cfg=config))
    assert recorded == [runner]


def test_figures_of_the_cpu_are_entered_at_once():
    assert run(HOOKS.build(dict(type='DeferredRuntimeInfoHook')), 3) == [2, 4, 6]


def test_figures_of_a_device_are_fetched_where_they_are_logged_and_in_the_end(monkeypatch):
    monkeypatch.setattr(deferred_runtime_info_hook, '_on_device', lambda value: isinstance(value, torch.Tensor))
    assert run(DeferredRuntimeInfoHook(), 6) == [0, 0, 0, 8, 8, 12]
    assert run(DeferredRuntimeInfoHook(max_steps=3), 5) == [0, 0, 6, 8, 10]


def test_a_checkpoint_has_the_figures_of_all_steps_before_it(monkeypatch):
    monkeypatch.setattr(deferred_runtime_info_hook, '_on_device', lambda value: isinstance(value, torch.Tensor))
    hook, (runner, _) = DeferredRuntimeInfoHook(), runner_of(9)
    runner.message_hub = MessageHub('test')
    hook.after_train_iter(runner, 0, outputs=dict(loss=torch.tensor(7.0)))
    checkpoint = dict(message_hub=runner.message_hub.state_dict())
    hook.before_save_checkpoint(runner, checkpoint)
    assert checkpoint['message_hub']['log_scalars']['train/loss'].current() == 7


def test_wrong_number_of_steps():
    with pytest.raises(ValueError, match=r'max_steps must be a whole number in \[1, inf\); got 0'):
        DeferredRuntimeInfoHook(max_steps=0)
