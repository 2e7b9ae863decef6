"""When the figures without labels are measured, and of which images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config

from omh_mmseg.engine.hooks import LabelFreeHook
from omh_mmseg.engine.hooks import label_free_hook as module


class Meter:
    def __init__(self, model: Any) -> None:
        self.numbers: list[int] = []

    def state(self) -> torch.Tensor:
        return torch.tensor(self.numbers, dtype=torch.float64)

    def use_state(self, state: torch.Tensor) -> None:
        self.numbers = state.int().tolist()

    def scores(self) -> dict[str, float]:
        return {'label_free/probe/in_use': float(len(self.numbers))}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    calls: list[list[int]] = []

    def measure(meter: Meter, dataset: Any, numbers: list[int]) -> None:
        meter.numbers = list(numbers)
        calls.append(meter.numbers)

    monkeypatch.setattr(module, 'LabelFreeMeter', Meter)
    monkeypatch.setattr(module, 'measure_images', measure)
    monkeypatch.setattr(module.DATASETS, 'build', lambda config: list(range(config['length'])))
    return calls


def runner(**model: Any) -> SimpleNamespace:
    model.setdefault('prediction_code', None)
    cfg = Config(dict(val_dataloader=dict(dataset=dict(length=9)), test_dataloader=dict(dataset=dict(length=2))))
    return SimpleNamespace(cfg=cfg, model=SimpleNamespace(**model))


@pytest.mark.parametrize(
    ('when', 'scores', 'expected'),
    [('no_labels', {}, True), ('no_labels', {'probe/mIoU': 1.0}, False), ('always', {'probe/mIoU': 1.0}, True),
     ('never', {}, False)],
)  # fmt: skip
def test_when(measured: list, when: str, scores: dict, expected: bool) -> None:
    metrics = dict(scores)
    LabelFreeHook(when, images=4).after_val_epoch(runner(), metrics)
    assert metrics == scores | ({'label_free/probe/in_use': 4.0} if expected else {})
    assert measured == ([[0, 3, 5, 8]] if expected else [])


def test_few_images_other_models_and_wrappers(measured: list) -> None:
    hook = LabelFreeHook(images=4)
    hook.after_test_epoch(runner(), {})
    hook.after_test_epoch(runner(module=SimpleNamespace(prediction_code=None)), {})
    assert measured == [[0, 1], [0, 1]]
    other = runner()
    del other.model.prediction_code
    hook.after_test_epoch(other, {})
    hook.after_val_epoch(runner(), None)
    assert len(measured) == 2
    with pytest.raises(ValueError, match=r"when must be one of \('no_labels', 'always', 'never'\); got 'sometimes'"):
        LabelFreeHook('sometimes')


def test_processes_share_the_images(measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'get_dist_info', lambda: (1, 2))
    LabelFreeHook(images=9).after_val_epoch(runner(), {})
    assert measured == [[1, 3, 5, 7]]


def test_it_runs_before_the_scores_are_logged() -> None:
    from mmengine.hooks import RuntimeInfoHook
    from mmengine.hooks.hook import Hook
    from mmengine.runner.priority import get_priority

    assert isinstance(LabelFreeHook(), Hook)
    assert get_priority(LabelFreeHook.priority) < get_priority(RuntimeInfoHook.priority)
