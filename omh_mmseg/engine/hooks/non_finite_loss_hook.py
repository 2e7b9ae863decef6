"""Stops a run whose loss is no longer a number, before a checkpoint of it is written."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.registry import HOOKS

MATCHING = 'omh_match_'


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Raises at the first step whose total loss is NaN or infinite, naming the terms.

    Under ``AmpOptimWrapper`` a non-finite step is skipped and the loss scale lowered, which is normal in the first
    steps; there, ``patience`` such steps in a row are needed.

    Args:
        patience: Consecutive non-finite steps that are tolerated under a loss scaler.

    Raises:
        FloatingPointError: While training; the last checkpoint on disk is the last good one.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, patience: int = 20) -> None:
        if patience < 0:
            raise ValueError(f'patience must be at least 0; got {patience}.')
        self.patience = patience
        self.bad_steps = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Check the losses of this step."""
        losses = {key: torch.as_tensor(value).detach() for key, value in (outputs or {}).items() if _is_loss(key)}
        bad = sorted(_described(key) for key, value in losses.items() if not math.isfinite(value))
        self.bad_steps = self.bad_steps + 1 if bad else 0
        tolerated = self.patience if hasattr(runner.optim_wrapper, 'loss_scaler') else 0
        if self.bad_steps > tolerated:
            raise FloatingPointError(
                f'Non-finite {", ".join(bad)} at iteration {runner.iter + 1}; training stops here. The last checkpoint '
                f'in {runner.work_dir} is from before; resume from it with --resume after lowering the learning rate, '
                'raising omh_head.entropy_weight, or without --amp.'
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
