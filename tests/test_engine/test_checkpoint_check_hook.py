from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.runner.base_loop import BaseLoop
from torch import nn

from omh_mmseg.engine.hooks import CheckpointShapeHook


class Loop(BaseLoop):
    def __init__(self) -> None:
        """A loop that has been built."""

    def run(self) -> None:
        """Nothing."""


def runner(wrapped: bool = False, training: bool = False) -> SimpleNamespace:
    model: nn.Module = nn.ModuleDict(dict(backbone=nn.Linear(2, 2), probe=nn.Linear(2, 3)))
    if wrapped:
        model = nn.Sequential()
        model.module = nn.ModuleDict(dict(backbone=nn.Linear(2, 2), probe=nn.Linear(2, 3)))
    return SimpleNamespace(model=model, _train_loop=Loop() if training else dict(), _load_from='run/iter_2.pth')


def checkpoint(**shapes: tuple[int, ...]) -> dict:
    sizes = dict(backbone=(2, 2), probe=(3, 2)) | shapes
    return dict(state_dict={f'{name}.weight': torch.zeros(size) for name, size in sizes.items()})


@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_other_shapes_end_a_test(wrapped, prefix):
    other = checkpoint(probe=(4, 2))['state_dict']
    message = r'run/iter_2.pth is of another model .*: probe.weight is \(4, 2\) there and \(3, 2\) here \(1 weights'
    with pytest.raises(ValueError, match=message):
        CheckpointShapeHook().after_load_checkpoint(
            runner(wrapped), dict(state_dict={f'{prefix}{key}': value for key, value in other.items()})
        )


@pytest.mark.parametrize('shapes', [{}, dict(backbone=(5, 2)), dict(unknown=(1,))])
def test_other_backbones_and_entries_do_not(shapes):
    CheckpointShapeHook().after_load_checkpoint(runner(), checkpoint(**shapes))


def test_a_checkpoint_without_the_heads_ends_a_test():
    model = nn.ModuleDict(dict(decode_head=nn.Linear(2, 2), linear_probe=nn.Linear(2, 2)))
    run = SimpleNamespace(model=model, _train_loop=dict(), _load_from='run/iter_2.pth')
    with pytest.raises(ValueError, match=r'lacks 2 weights of .*: decode_head.weight, decode_head.bias'):
        CheckpointShapeHook().after_load_checkpoint(run, dict(state_dict={}))
    heads = {key: value for key, value in model.state_dict().items() if key.startswith('decode')}
    CheckpointShapeHook().after_load_checkpoint(run, dict(state_dict=heads))


def test_trainings_may_start_from_another_model():
    CheckpointShapeHook().after_load_checkpoint(runner(training=True), checkpoint(probe=(4, 2)))
