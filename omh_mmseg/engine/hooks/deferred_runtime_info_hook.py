"""Brings the figures of training steps to the log without waiting for the device at every step."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.checks import COUNT, ranges
from omh_mmseg.utils.config import check_settings


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's hook of that name, but the losses of a device are fetched when they are logged, all steps at once.

    Each value of each step reaches the message hub as before, in the order of the steps. Losses that are on the CPU
    reach it at once. Takes the place of the default hook: ``default_hooks = dict(runtime_info=dict(type=...))``.

    Args:
        max_steps: Steps after which they are fetched at the latest.

    Raises:
        ValueError: If max_steps is below 1.
    """

    @ranges(max_steps=COUNT)
    def __init__(self, max_steps: int = 50) -> None:
        self.max_steps = max_steps
        self._held: list[dict[str, Any]] = []

    def before_run(self, runner: Runner) -> None:
        """Record the config; runs with another visualizer than ours have its shared options checked here."""
        check_settings(runner.cfg)
        super().before_run(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Keep the figures of this step; hand over all that are kept where they are about to be logged."""
        held = {key: value.detach() if isinstance(value, Tensor) else value for key, value in (outputs or {}).items()}
        self._held.append(held)
        loggers = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        logged = any((batch_idx + 1) % interval == 0 for interval in loggers)
        last = runner.iter + 1 == runner.max_iters or self.end_of_epoch(runner.train_dataloader, batch_idx)
        if logged or last or len(self._held) >= self.max_steps or not any(map(_on_device, held.values())):
            self.hand_over(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Have the figures of the steps up to a checkpoint in it."""
        if self._held:
            self.hand_over(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def hand_over(self, runner: Runner) -> None:
        """Put the figures of the steps that are kept into the message hub."""
        held, self._held = self._held, []
        waiting = [value for figures in held for value in figures.values() if _on_device(value)]
        fetched = iter(torch.stack([value.double().mean() for value in waiting]).tolist() if waiting else [])
        for figures in held:
            for key, value in figures.items():
                runner.message_hub.update_scalar(f'train/{key}', next(fetched) if _on_device(value) else value)


def _on_device(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type != 'cpu'
