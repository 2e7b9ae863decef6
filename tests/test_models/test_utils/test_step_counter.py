from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from omh_mmseg.models.utils.step_counter import StepCounter


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('iteration', torch.zeros((), dtype=torch.long))
        self.counter = StepCounter()

    @property
    def step(self) -> int:
        return self.counter.read(self.iteration)


@pytest.fixture
def counting() -> Counting:
    module = Counting()
    for _ in range(3):
        module.counter.advance(module.iteration)
    return module


def test_buffer_and_host_count_alike(counting):
    assert counting.step == int(counting.iteration) == 3
    assert counting.state_dict()['iteration'] == 3


def test_steps_are_counted_without_reading_the_buffer(counting, monkeypatch):
    def read(self: Tensor) -> int:
        raise AssertionError('the device was asked for a value')

    monkeypatch.setattr(Tensor, '__int__', read)
    for _ in range(5):
        counting.counter.advance(counting.iteration)
    assert counting.step == 8


@pytest.mark.parametrize('assign', [False, True])
def test_a_checkpoint_is_noticed(counting, assign):
    counting.load_state_dict(dict(iteration=torch.tensor(70)), assign=assign)
    assert counting.step == 70
    counting.counter.advance(counting.iteration)
    assert counting.step == int(counting.iteration) == 71


def test_a_change_in_place_is_noticed(counting):
    counting.iteration.fill_(20)
    assert counting.step == 20
    counting.iteration.zero_()
    counting.counter.advance(counting.iteration)
    assert counting.step == int(counting.iteration) == 1


def test_a_new_buffer_is_noticed(counting):
    counting._apply(lambda tensor: tensor.clone().fill_(9))
    assert counting.step == 9


def test_copies_count_on_their_own(counting):
    other = copy.deepcopy(counting)
    other.counter.advance(other.iteration)
    counting.iteration.fill_(30)
    assert (counting.step, other.step) == (30, 4)
