"""Lets a resumed run draw the random numbers that the uninterrupted one would have drawn."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.registry import HOOKS

CHECKPOINT_KEY = 'random_state'


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Stores the state of all random generators in each checkpoint and restores it where a run is resumed.

    mmengine restores weights, optimiser and the position in the data, but not the generators, on which dropouts and
    every draw of a loss depend. Validation leaves no trace in them, so that a checkpoint written before it will do. On
    a CPU a resumed run then continues bit by bit, as long as the pipeline draws nothing in the main process
    (``num_workers=0`` with random transforms). Other ranks than the first are seeded anew from its state.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None
        self.loaded_step = -1
        self.before_validation: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the state of the generators."""
        checkpoint[CHECKPOINT_KEY] = generator_states()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the state until it is known whether a run is resumed."""
        self.loaded = checkpoint.get(CHECKPOINT_KEY)
        self.loaded_step = checkpoint.get('meta', {}).get('iter', -1)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Restore the state before the first step of a resumed run: what came up to here drew numbers, too."""
        if self.loaded is not None and runner.iter == self.loaded_step:
            restore_generators(self.loaded)
            if get_rank() > 0:
                torch.manual_seed(int(torch.randint(2**62, ())) + get_rank())
        self.loaded = None

    def before_val(self, runner: Runner) -> None:
        """Remember the state."""
        self.before_validation = generator_states()

    def after_val(self, runner: Runner) -> None:
        """Go back to it."""
        if self.before_validation is not None:
            restore_generators(self.before_validation)
            self.before_validation = None


def generator_states() -> dict[str, Any]:
    """States of the generators of torch (CPU and all CUDA devices), numpy and Python."""
    return dict(
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        numpy=np.random.get_state(),
        python=random.getstate(),
    )


def restore_generators(states: dict[str, Any]) -> None:
    """Set the generators to what `generator_states` returned; CUDA's where there are as many devices."""
    torch.set_rng_state(states['torch'].cpu())
    if torch.cuda.is_available() and len(states['cuda']) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states['cuda']])
    np.random.set_state(states['numpy'])
    version, words, gauss = states['python']
    random.setstate((version, tuple(words), gauss))
