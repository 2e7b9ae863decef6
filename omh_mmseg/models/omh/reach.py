"""What OMH's losses do to the features: from which step on, and how strongly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omh_mmseg.models.omh.gradient_shares import GradientShares
from omh_mmseg.models.utils.step_counter import StepCounter
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import STEPS, WEIGHT, ranges
from omh_mmseg.utils.log import warn_once

ASSUMED_LENGTH = 500
"""Steps that a run of unknown length is taken to have. The default share is then step 200, where version 0.2 began."""


@MODELS.register_module()
class FixedWeight(nn.Module):
    """Losses reach the features with their ``loss_weight``.

    Args:
        begin: Training step from which losses reach the features: an integer, or a share of the run's steps in (0, 1),
            see `use_run_length`. Centres that start from k-means do so at this step, and priors between levels count
            from it on.
        ramp: Steps over which the weight then grows linearly to its full value.

    Raises:
        ValueError: If ``ramp`` is no integer of at least 0, or ``begin`` neither that nor a share.
    """

    scales_gradients = False
    run_length: Tensor

    @ranges(begin=WEIGHT, ramp=STEPS)
    def __init__(self, begin: int | float = 0.4, ramp: int = 0) -> None:
        super().__init__()
        self._share = begin if isinstance(begin, float) and 0 < begin < 1 else None
        if self._share is None and isinstance(begin, float):
            raise ValueError(
                f'begin must be a whole number of steps, or a share of the run in (0, 1), such as 0.4; got {begin}.'
            )
        self._step = int(begin)
        self.ramp = ramp
        self.register_buffer('run_length', torch.zeros((), dtype=torch.long))
        self._length_reader = StepCounter()

    @property
    def begin(self) -> int:
        """Training step from which losses reach the features. A run of unknown length counts as one of 500 steps."""
        if self._share is None:
            return self._step
        return round(self._share * (self._length_reader.read(self.run_length) or ASSUMED_LENGTH))

    def use_run_length(self, steps: int, resumed: bool = False) -> None:
        """Say how many training steps the run has, of which ``begin`` may be a share.

        It is kept with the weights. A run that is resumed, for more steps too, keeps the step at which it began.

        Args:
            steps: Of the whole run.
            resumed: Whether it goes on from a checkpoint.
        """
        if not resumed:
            self.run_length.fill_(steps)
        elif not self._length_reader.read(self.run_length):
            # A run of version 0.2.
            self.run_length.fill_(ASSUMED_LENGTH)

    def weight(self, step: int) -> float:
        """Share of the losses' weight in force at a step, in [0, 1]."""
        if self._share is not None and not self._length_reader.read(self.run_length):
            warn_once(
                self,
                f'nobody has told OMH how long the run is, of which reach.begin={self._share:g} is a share: it begins '
                f"at step {self.begin}. Add dict(type='RunLengthHook') to the hooks of the config, or set "
                'omh_head.reach.begin to a number of steps',
            )
        elapsed = step - self.begin
        return 0.0 if elapsed < 0 else min(1.0, (elapsed + 1) / (self.ramp + 1))

    def forward(self, code: Tensor, shares: GradientShares | None, loss_weight: float) -> Tensor:
        """The code (B, D, h, w) as a loss of this weight sees it."""
        return code

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Weights of version 0.2 do not have it.
        unknown = {f'{prefix}run_length': torch.zeros_like(self.run_length)}
        super()._load_from_state_dict({**unknown, **state_dict}, prefix, *args)


@MODELS.register_module()
class HostShare(FixedWeight):
    """Losses pull at the code with a set share of the strength of the host's, see `GradientShares` (our choice).

    The ``loss_weight`` of a loss is then the norm of its gradient on the code, relative to that of the host's gradient.
    What reaches the centres is as with `FixedWeight`.

    Args:
        begin: See `FixedWeight`.
        ramp: See `FixedWeight`.
    """

    scales_gradients = True

    def forward(self, code: Tensor, shares: GradientShares | None, loss_weight: float) -> Tensor:
        """The code (B, D, h, w) as a loss of this weight sees it.

        Raises:
            ValueError: Without shares.
        """
        if shares is None:
            raise ValueError(
                "reach=dict(type='HostShare') scales gradients where the host's code ends: give shares, or set "
                "omh_head.reach=dict(type='FixedWeight', ...)."
            )
        return shares.branch(loss_weight, len(code))
