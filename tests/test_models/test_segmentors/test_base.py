"""What the hosts share: the order of a training step, and where its steps are counted from."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from mmseg.structures import SegDataSample


def pairs(count: int = 3) -> dict[str, torch.Tensor]:
    return dict(anchor=torch.randn(count, 3, 32, 32), neighbour=torch.randn(count, 3, 32, 32))


def test_after_losses_follows_all_losses(tiny_stego, monkeypatch):
    model, calls = tiny_stego(), []
    for part in (model.cluster_probe, model.linear_probe, model.omh_head):
        loss = part.loss
        monkeypatch.setattr(
            part, 'loss', lambda *given, part=part, loss=loss: calls.append(type(part).__name__) or loss(*given)
        )
    monkeypatch.setattr(model, 'after_losses', lambda: calls.append(model.step))
    for step in range(2):
        calls.clear()
        model.loss(pairs(), [SegDataSample() for _ in range(3)])
        assert calls == ['ClusterProbe', 'LinearProbe', 'OMHHead', step]
    assert model.step == 2


def test_parts_of_a_host_step(tiny_stego):
    losses, codes, code = step = tiny_stego().host_losses(pairs())
    assert step.codes is codes and codes.shape == (6, 10, 4, 4) and torch.equal(code, codes[:3])
    assert list(losses) == ['loss_self', 'loss_knn', 'loss_rand'] and step.losses is losses


@pytest.mark.parametrize('loader', ['torch', 'mmengine'])
def test_a_host_trained_without_omh_counts_from_0_with_it(tiny_stego, monkeypatch, loader):
    """OMH's start would else lie behind it."""
    messages: list[str] = []
    monkeypatch.setattr(logging.Logger, 'info', lambda self, message, *_: messages.append(str(message)))
    host, both = tiny_stego(omh_head=None), tiny_stego()
    host.iteration.fill_(5000)
    both.iteration.fill_(7)
    weights = host.state_dict()
    messages.clear()
    if loader == 'torch':
        both.load_state_dict(weights, strict=False)
    else:
        load_state_dict(both, weights)
    assert both.step == int(both.iteration) == 0 and int(weights['iteration']) == 5000
    assert torch.equal(both.decode_head.linear.weight, host.decode_head.linear.weight)
    (message,) = (message for message in messages if 'steps' in message)
    assert 'trained for 5000 steps without OMH: training steps count from 0 again' in message


@pytest.mark.parametrize('sizes', [dict(num_classes=5), dict(omh_head=dict(type='OMHHead', num_levels=4))])
def test_other_levels_count_from_0(tiny_stego, monkeypatch, sizes):
    """Centres that a checkpoint does not fill would stay as they were drawn: their start would lie behind them."""
    messages: list[str] = []
    monkeypatch.setattr(logging.Logger, 'info', lambda self, message, *_: messages.append(str(message)))
    trained, fresh = tiny_stego(), tiny_stego(**sizes)
    trained.iteration.fill_(5000)
    messages.clear()
    load_state_dict(fresh, trained.state_dict())
    assert fresh.step == 0
    (message,) = (message for message in messages if 'steps' in message)
    assert 'trained for 5000 steps without these levels of OMH: training' in message


def test_other_weights_keep_their_steps(tiny_stego, monkeypatch):
    messages: list[str] = []
    monkeypatch.setattr(logging.Logger, 'info', lambda self, message, *_: messages.append(str(message)))
    for parts in (dict(), dict(omh_head=None)):
        trained, fresh = tiny_stego(**parts), tiny_stego(**parts)
        trained.iteration.fill_(5000)
        fresh.load_state_dict(trained.state_dict())
        assert fresh.step == 5000
    host = tiny_stego(omh_head=None)
    host.load_state_dict(tiny_stego().state_dict() | dict(iteration=torch.tensor(3)), strict=False)
    assert host.step == 3
    assert not any('count from 0' in message for message in messages)
