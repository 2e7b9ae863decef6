"""Each row of a schedule changes something: first steps of OMH's head as the rows set it, on small codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import Tensor

from omh_mmseg.models.omh import k_means_start
from omh_mmseg.models.omh.gradient_shares import GradientShares
from omh_mmseg.models.omh.reach import FixedWeight
from omh_mmseg.registry import MODELS
from omh_mmseg.study.job import SweepJob, job_config
from omh_mmseg.study.schedule_reader import read_schedule

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
DEMO, PHOTOS = 'vit-t8_demo', 'mobilenet-v2_folder'
CURVES = ('weights', 'lambda', 'levels', 'temperature', 'expansion')
SCHEDULES = [
    ('ablations', DEMO), ('ablations_photos', PHOTOS), *((name, DEMO) for name in CURVES),
    ('forms', PHOTOS), *(pytest.param(name, PHOTOS, marks=pytest.mark.slow) for name in CURVES),
]  # fmt: skip
HOST, CONTROL = 'host', 'control'
CHANNELS, CLASSES = 6, 3
BEGIN = 100
STEPS = [0, 1, *range(BEGIN - 2, BEGIN + 3)]
SMALLEST = 1e-6


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, mmseg_scope: None) -> None:
    """Few positions for k-means, and the repository's configs."""
    monkeypatch.setattr(k_means_start, 'POOL_SIZE', 128)
    monkeypatch.chdir(CONFIGS.parent)


def first_steps(head_config: dict[str, Any] | None) -> list[Tensor]:
    """What a training of a projection and, if there is one, of an OMH head has made of the weights after some steps.

    The features are noisy directions, and the host's loss pulls their codes to others. The steps lie round the one at
    which OMH begins to reach the features.

    Returns:
        The projection, then the centres of each level, each as it is after every step.
    """
    generator = torch.Generator().manual_seed(0)
    projection = torch.nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
    directions, targets, weight = (torch.randn(9, CHANNELS, generator=generator) for _ in range(3))
    projection.weight.data.copy_(torch.eye(CHANNELS)[..., None, None] + 0.1 * weight[:CHANNELS, :, None, None])
    head = None
    if head_config is not None:
        torch.manual_seed(0)
        head = MODELS.build({**head_config, 'in_channels': CHANNELS, 'num_classes': CLASSES})
        # So that a share of the run is the step at which the demo configs begin.
        head.reach.use_run_length(round(BEGIN / 0.4))
        head.train()
    parameters = [*projection.parameters(), *(head.parameters() if head is not None else ())]
    optimiser = torch.optim.SGD([one for one in parameters if one.requires_grad], 0.1)
    states = []
    for step in STEPS:
        kind = torch.randint(9, (2, 5, 5), generator=generator)
        noise = 0.3 * torch.randn(2, CHANNELS, 5, 5, generator=generator)
        code = projection(directions[kind].permute(0, 3, 1, 2) + noise)
        loss = (code - targets[kind].permute(0, 3, 1, 2)).square().mean()
        if head is not None:
            losses = head.loss(code, step, GradientShares(code) if head.needs_shares(step) else None)
            loss = loss + sum(value for name, value in losses.items() if name.startswith('loss_'))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        levels = [] if head is None else list(head.centres)
        states.append([one.detach().clone() for one in (projection.weight, *levels)])
    return [torch.stack(each) for each in zip(*states)]


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    """Largest difference of weights, infinite where the levels have other sizes."""
    if [part.shape for part in one] != [part.shape for part in other]:
        return float('inf')
    return max(float((a - b).abs().max()) for a, b in zip(one, other))


@pytest.mark.parametrize(('name', 'data'), SCHEDULES, ids=lambda value: value)
def test_every_row_takes_other_first_steps(name: str, data: str):
    schedule = read_schedule(f'configs/study/{name}.py', {'data': data})
    files: dict[str, Config] = {}
    heads = {
        run.name: job_config(SweepJob(run, 0, 'folder', schedule.options), files).model.get('omh_head')
        for run in schedule.runs
        if not run.of
    }
    heads.setdefault(HOST, None)
    assert heads[HOST] is None and len(heads) > 5
    taken = {row: first_steps(head) for row, head in heads.items()}
    # Nothing of the control reaches the features, nor of one level.
    for row in (CONTROL, 'N 1'):
        if row in taken:
            assert difference(taken[row][:1], taken[HOST]) == 0, row
    rows = list(taken)
    repeated = {
        (first, second): difference(taken[first], taken[second])
        for place, first in enumerate(rows)
        for second in rows[place + 1 :]
        if difference(taken[first], taken[second]) <= SMALLEST
    }
    assert not repeated


def test_a_row_that_changes_nothing_is_seen():
    default = dict(type='OMHHead')
    same, other = dict(default, match=dict(direction='fine_to_coarse')), dict(default, match=dict(direction='both'))
    assert difference(first_steps(default), first_steps(same)) == 0
    assert difference(first_steps(default), first_steps(other)) > SMALLEST
    assert FixedWeight().begin != BEGIN  # the length of the run reaches the head
