from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.runner import get_priority

from omh_mmseg.engine.hooks import NonFiniteLossHook
from omh_mmseg.registry import HOOKS


def runner_with(**wrapper: object) -> SimpleNamespace:
    return SimpleNamespace(optim_wrapper=SimpleNamespace(**wrapper), iter=6, work_dir='work_dirs/a')


def step(hook: NonFiniteLossHook, runner: SimpleNamespace, **outputs: float) -> None:
    hook.after_train_iter(runner, 0, outputs={key: torch.tensor(value) for key, value in outputs.items()})


def test_finite_losses_pass():
    hook = HOOKS.build(dict(type='NonFiniteLossHook'))
    step(hook, runner_with(), loss=1.0, loss_knn=-3.0)
    hook.after_train_iter(runner_with(), 0, outputs=None)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_stops_at_the_first_and_names_the_terms(value):
    with pytest.raises(FloatingPointError) as caught:
        step(NonFiniteLossHook(), runner_with(), loss=value, loss_knn=value, loss_rand=0.1)
    message = str(caught.value)
    assert message.startswith('Non-finite loss, loss_knn at iteration 7')
    assert 'last checkpoint in work_dirs/a is from before; resume from it with --resume' in message
    assert 'loss_rand' not in message


def test_figures_that_are_no_losses_pass():
    step(NonFiniteLossHook(), runner_with(), loss=1.0, omh_violation_12=math.nan)


@pytest.mark.parametrize(('key', 'levels'), [('omh_match_23', '2 and 3'), ('omh_match_910', '9 and 10')])
def test_names_the_level_pair(key, levels):
    with pytest.raises(FloatingPointError, match=f'Non-finite loss_omh_match, matching loss between levels {levels} '):
        step(NonFiniteLossHook(), runner_with(), loss_omh_match=math.nan, omh_match_12=0.5, **{key: math.nan})


def test_a_loss_scaler_may_skip_steps():
    hook, runner = NonFiniteLossHook(patience=2), runner_with(loss_scaler=object())
    for value in (math.nan, math.inf, 1.0, math.nan, math.nan):
        step(hook, runner, loss=value)
    with pytest.raises(FloatingPointError):
        step(hook, runner, loss=math.nan)


def test_checks_before_the_checkpoint_is_written():
    assert get_priority(NonFiniteLossHook.priority) < get_priority(CheckpointHook.priority)


def test_losses_of_a_device_are_fetched_some_steps_at_a_time(monkeypatch):
    monkeypatch.setattr(NonFiniteLossHook, '_check_step', lambda self, _runner, *seen: checked.append(seen))
    hook, runner, checked = NonFiniteLossHook(interval=3), runner_with(), []
    for runner.iter in range(4):
        hook.after_train_iter(runner, 0, outputs=dict(loss=torch.zeros((), device='meta')))
        assert len(checked) == (3 if runner.iter >= 2 else 0)
    hook.before_save_checkpoint(runner, {})
    assert [iteration for iteration, _ in checked] == [1, 2, 3, 4]
    hook.after_train(runner)
    assert len(checked) == 4


def test_what_was_kept_stops_before_the_checkpoint():
    hook, runner = NonFiniteLossHook(interval=9), runner_with()
    hook._held = [(5, dict(loss=torch.tensor(1.0))), (6, dict(loss=torch.tensor(math.nan)))]
    with pytest.raises(FloatingPointError, match='Non-finite loss at iteration 6;'):
        hook.before_save_checkpoint(runner, {})


def test_wrong_patience():
    with pytest.raises(ValueError, match='interval must be .*; got 0'):
        NonFiniteLossHook(interval=0)
    with pytest.raises(ValueError, match='patience must be .*; got -1'):
        NonFiniteLossHook(patience=-1)
