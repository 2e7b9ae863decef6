"""Stops a run whose loss is no longer a number, before a checkpoint of it is written."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.checks import COUNT, STEPS, ranges

MATCHING = 'omh_match_'


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Raises at the first step whose total loss is NaN or infinite, naming the terms.

    Under ``AmpOptimWrapper`` a non-finite step is skipped and the loss scale lowered, which is normal in the first
    steps; there, ``patience`` such steps in a row are needed.

    Losses on the CPU are looked at after each step. Those of a device are fetched some steps at a time, and before a
    checkpoint is written, so that the host need not wait for each step.

    Args:
        patience: Consecutive non-finite steps that are tolerated under a loss scaler.
        interval: Steps after which the losses of a device are fetched.

    Raises:
        FloatingPointError: While training; the last checkpoint on disk is the last good one.
    """

    priority = 'ABOVE_NORMAL'

    @ranges(patience=STEPS, interval=COUNT)
    def __init__(self, patience: int = 20, interval: int = 50) -> None:
        self.patience = patience
        self.interval = interval
        self.bad_steps = 0
        self._held: list[tuple[int, dict[str, Tensor]]] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Check the losses of this step, or keep them for a later check."""
        losses = {key: torch.as_tensor(value).detach() for key, value in (outputs or {}).items() if _is_loss(key)}
        self._held.append((runner.iter + 1, losses))
        on_device = any(value.device.type != 'cpu' for value in losses.values())
        if not on_device or len(self._held) >= self.interval:
            self._check(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check what has been kept."""
        self._check(runner)

    def after_train(self, runner: Runner) -> None:
        """Check what has been kept."""
        self._check(runner)

    def _check(self, runner: Runner) -> None:
        held, self._held = self._held, []
        for iteration, losses in held:
            if losses:
                self._check_step(runner, iteration, losses)

    def _check_step(self, runner: Runner, iteration: int, losses: dict[str, Tensor]) -> None:
        values = torch.stack([value.double().mean() for value in losses.values()]).tolist()
        bad = sorted(_described(key) for key, value in zip(losses, values) if not math.isfinite(value))
        self.bad_steps = self.bad_steps + 1 if bad else 0
        tolerated = self.patience if hasattr(runner.optim_wrapper, 'loss_scaler') else 0
        if self.bad_steps > tolerated:
            raise FloatingPointError(
                f'Non-finite {", ".join(bad)} at iteration {iteration}; training stops here. The last checkpoint '
                f'in {runner.work_dir} is from before; resume from it with --resume after lowering the learning rate, '
                'raising omh_head.plan.entropy_weight, or without --amp.'
            )


def _is_loss(key: str) -> bool:
    return 'loss' in key or key.startswith(MATCHING)


def _described(key: str) -> str:
    """The name of a term; of OMH's matching loss of one level pair, the levels."""
    if not key.startswith(MATCHING):
        return key
    pair = key.removeprefix(MATCHING)
    half = len(pair) // 2
    return f'matching loss between levels {pair[:half]} and {pair[half:]}'
