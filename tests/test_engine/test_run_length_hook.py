from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from omh_mmseg.models.omh import OMHHead
from omh_mmseg.registry import HOOKS


@pytest.fixture
def started():
    """Begin a run: ``started(max_iters, iteration, state, **reach)``; its head and the warnings."""
    init_default_scope('mmseg')

    def start(max_iters: int, iteration: int = 0, state: dict | None = None, **reach):
        model = nn.Module()
        model.omh_head = OMHHead(6, 4, num_levels=2, reach=reach)
        if state is not None:
            model.omh_head.load_state_dict(state)
        messages: list[str] = []
        logger = SimpleNamespace(warning=messages.append)
        runner = SimpleNamespace(model=model, logger=logger, iter=iteration, max_iters=max_iters)
        HOOKS.build(dict(type='RunLengthHook')).before_train(runner)
        return model.omh_head, messages

    return start


@pytest.mark.parametrize(
    ('reach', 'max_iters', 'begin'),
    [({}, 60, 24), ({}, 500, 200), ({}, 5000, 2000), ({}, 1, 0), (dict(begin=0.29), 100, 29), (dict(begin=7), 60, 7)],
)
def test_start_is_a_share_of_the_run(started, reach, max_iters, begin):
    head, messages = started(max_iters, **reach)
    assert head.reach.begin == begin and messages == []
    assert [head.reach.weight(step) > 0 for step in (begin - 1, begin)] == [False, True]


def test_centres_start_with_the_losses(started):
    head, _ = started(40)
    code = torch.randn(2, 6, 3, 3)
    moved = []
    for step in range(18):
        before = head.centres[0].detach().clone()
        losses = head.loss(code, step, SimpleNamespace(branch=lambda weight, count: code))
        assert ('loss_omh_match' in losses) == (step >= 16)
        moved.append(not torch.equal(before, head.centres[0]))
    assert moved == [step == 16 for step in range(18)]
    assert head.rule.start.pool.abs().sum() > 0


@pytest.mark.parametrize(('begin', 'max_iters'), [(200, 60), (60, 60)])
def test_run_that_ends_before_is_warned_of_once(started, begin, max_iters):
    _, messages = started(max_iters, begin=begin)
    (message,) = messages
    assert f'begins at step {begin} and the run has {max_iters} steps' in message and 'reach.begin=0.4' in message
    assert started(max_iters, begin=max_iters - 1)[1] == []


def test_resumed_run_goes_on_and_a_new_one_begins_anew(started):
    state = started(60)[0].state_dict()
    assert int(state['reach.run_length']) == 60
    assert started(120, 60, state)[0].reach.begin == 24
    assert started(120, 0, state)[0].reach.begin == 48
    # Weights of version 0.2 say nothing: their run began at step 200.
    older = {key: value for key, value in state.items() if key != 'reach.run_length'}
    assert started(5000, 500, older)[0].reach.begin == 200
    assert started(5000, 0, older)[0].reach.begin == 2000


def test_unknown_length_is_said_once(monkeypatch):
    messages: list[str] = []
    monkeypatch.setattr('mmengine.logging.MMLogger.warning', lambda self, text, *_: messages.append(text))
    head = OMHHead(6, 4, num_levels=2)
    assert head.reach.begin == 200 and messages == []
    assert [head.reach.weight(step) for step in (0, 199, 200)] == [0.0, 0.0, 1.0]
    (message,) = messages
    assert 'RunLengthHook' in message and 'step 200' in message


@pytest.mark.parametrize(('max_iters', 'warned'), [(10, True), (11, False)])
def test_what_a_host_never_begins(max_iters, warned):
    messages = []
    model = nn.Module()
    model.first_steps = {'model.temporal.begin': 10}
    runner = SimpleNamespace(
        model=model, logger=SimpleNamespace(warning=messages.append), iter=0, max_iters=max_iters
    )
    HOOKS.build(dict(type='RunLengthHook')).before_train(runner)
    assert [('model.temporal.begin' in text, 'has 10 steps' in text) for text in messages] == [(True, True)] * warned


def test_host_without_omh_has_nothing_to_learn():
    model = nn.Module()
    model.omh_head = None
    HOOKS.build(dict(type='RunLengthHook')).before_train(SimpleNamespace(model=model, iter=0, max_iters=10))


@pytest.mark.parametrize('wrong', [0.0, 1.0, 1.5, -0.4, float('nan'), 'half', [1], None])
def test_what_is_no_start(wrong):
    with pytest.raises(ValueError, match='begin must be (a number in|a whole number of steps, or a share of the run)'):
        OMHHead(6, 4, num_levels=2, reach=dict(begin=wrong))


def test_runtime_of_the_configs_has_the_hook():
    config = Config.fromfile(Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'default_runtime.py')
    assert config.default_hooks.run_length.type == 'RunLengthHook'
