from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from omh_mmseg.engine.hooks import BorderClusterHook
from omh_mmseg.registry import HOOKS


def batch(border: bool) -> list[SegDataSample]:
    """Eight images whose level 1 has a cluster of its own in the outermost columns, or has not."""
    samples = []
    for number in range(8):
        level = (torch.arange(64)[:, None] + torch.arange(96) + 5 * number) // 16 % 2
        if border:
            level[:, :8] = level[:, -8:] = 2
        samples.append(SegDataSample(metainfo=dict(img_shape=(64, 96))))
        samples[-1].pred_level1 = PixelData(data=level[None])
    return samples


@pytest.fixture
def run() -> SimpleNamespace:
    """A run that logs warnings, its model inside the wrapper of test-time augmentation."""
    model = SimpleNamespace(
        assignment=SimpleNamespace(sizes=dict(pred_sem_seg=2, pred_level1=3)), backbone=SimpleNamespace(stride=8)
    )
    messages: list[str] = []
    logger = SimpleNamespace(warning=messages.append)
    return SimpleNamespace(model=SimpleNamespace(module=model), logger=logger, messages=messages)


def validate(hook: BorderClusterHook, run: SimpleNamespace, border: bool) -> None:
    hook.before_val_epoch(run)
    hook.after_val_iter(run, 0, None, batch(border))
    hook.after_val_epoch(run, {})


def test_warns_after_a_training_of_what_its_last_validation_showed(run):
    hook = HOOKS.build(dict(type='BorderClusterHook'))
    validate(hook, run, border=True)
    assert run.messages == []
    hook.after_train(run)
    (message,) = run.messages
    assert 'level1, cluster 2: 100% of the outermost column of positions at the left, 0% of the next' in message
    assert 'at the right' in message and 'at the top' not in message
    assert 'Conv2dAdaptivePadding' in message and 'border_clusters.py' in message
    validate(hook, run, border=False)
    hook.after_train(run)
    assert len(run.messages) == 1


def test_warns_after_a_test(run):
    hook = HOOKS.build(dict(type='BorderClusterHook'))
    for border in (False, True):
        hook.before_test_epoch(run)
        hook.after_test_iter(run, 0, None, batch(border))
        hook.after_test_epoch(run, {})
        assert len(run.messages) == int(border)


def test_says_nothing_without_a_validation_or_of_another_model(run):
    hook = HOOKS.build(dict(type='BorderClusterHook'))
    hook.after_train(run)
    run.model = torch.nn.Linear(1, 1)
    validate(hook, run, border=True)
    hook.after_train(run)
    assert run.messages == []
