"""What a step draws follows from seed, rank and step; what the loader draws is asked for, or warned about."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from omh_mmseg.datasets.samplers import SeededInfiniteSampler
from omh_mmseg.engine.hooks import RandomStateHook, random_state_hook


def runner_at(step: int = 0, seed: int = 3, sampler_seed: int = 3) -> SimpleNamespace:
    data, warnings = Items(range(8)), []
    loader = DataLoader(data, 2, sampler=SeededInfiniteSampler(data, seed=sampler_seed))
    loop = SimpleNamespace(dataloader=loader, dataloader_iterator=Lazy(loader))
    return SimpleNamespace(
        iter=step, seed=seed, train_dataloader=loader, train_loop=loop, warnings=warnings,
        logger=SimpleNamespace(warning=warnings.append),
    )  # fmt: skip


class Items(list):
    """A data set of numbers."""


class Lazy:
    """Stands for mmengine's iterator over batches."""

    def __init__(self, loader: DataLoader) -> None:
        self.batches = iter(loader)


def drawn() -> tuple:
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


def step_draws(hook: RandomStateHook, step: int, **options: int) -> tuple:
    hook.before_train_iter(runner_at(step, **options), step)
    return drawn()


def test_draws_of_a_step_depend_on_seed_and_step_alone() -> None:
    hook = RandomStateHook()
    first = [step_draws(hook, step) for step in range(4)]
    assert len({value for draws in first for value in draws[0]}) == 8
    torch.rand(7), np.random.rand(5), random.random()
    assert [step_draws(RandomStateHook(), step) for step in (3, 1)] == [first[3], first[1]]
    assert step_draws(hook, 1, seed=4) != first[1]


def test_ranks_draw_apart_but_start_alike(monkeypatch) -> None:
    hook, steps, starts = RandomStateHook(), [], []
    for rank in range(2):
        monkeypatch.setattr(random_state_hook, 'get_rank', lambda rank=rank: rank)
        hook.before_run(runner_at())
        starts.append(drawn())
        steps.append(step_draws(hook, 1))
    assert starts[0] == starts[1] and steps[0] != steps[1]


def test_a_resumed_run_goes_on_in_the_order_of_its_checkpoint() -> None:
    """Its config may have no seed, or another one."""
    first, checkpoint = runner_at(sampler_seed=11), {}
    RandomStateHook().before_save_checkpoint(first, checkpoint)
    for step, seed in ((0, 3), (4, 11)):
        resumed, hook = runner_at(step), RandomStateHook()
        hook.after_load_checkpoint(resumed, dict(checkpoint))
        hook.before_train(resumed)
        assert resumed.train_dataloader.sampler.seed == seed
        expected = [int(index) for index in _first(SeededInfiniteSampler(Items(range(8)), seed=seed))]
        assert next(resumed.train_loop.dataloader_iterator.batches).tolist() == expected


def _first(sampler: SeededInfiniteSampler) -> list[int]:
    iterator = iter(sampler)
    return [next(iterator) for _ in range(2)]


@pytest.mark.parametrize(('name', 'warned'), [('RandomFlip', True), ('CentreCrop', False)])
def test_another_sampler_is_warned_about_where_something_draws(name, warned) -> None:
    transform = type(name, (), {})()
    data = SimpleNamespace(dataset=SimpleNamespace(pipeline=SimpleNamespace(transforms=[transform])))
    runner = runner_at()
    runner.train_dataloader = SimpleNamespace(dataset=data, sampler=object())
    RandomStateHook().before_train(runner)
    assert len(runner.warnings) == warned
    if warned:
        assert 'RandomFlip draw' in runner.warnings[0] and "type='SeededInfiniteSampler'" in runner.warnings[0]
