"""What OMH's losses do to the features: from which step on, and how strongly."""

from __future__ import annotations

from torch import Tensor, nn

from omh_mmseg.models.omh.gradient_shares import GradientShares
from omh_mmseg.registry import MODELS


@MODELS.register_module()
class FixedWeight(nn.Module):
    """Losses reach the features with their ``loss_weight``.

    Args:
        begin: Training step from which losses reach the features. Centres that start from k-means do so at this step,
            and priors between levels count from it on.
        ramp: Steps over which the weight then grows linearly to its full value.

    Raises:
        ValueError: If a number is no integer of at least 0.
    """

    scales_gradients = False

    def __init__(self, begin: int = 200, ramp: int = 0) -> None:
        super().__init__()
        for name, value in (('begin', begin), ('ramp', ramp)):
            if not isinstance(value, int) or value < 0:
                raise ValueError(f'{name} must be an integer of at least 0; got {value!r}.')
        self.begin = begin
        self.ramp = ramp

    def weight(self, step: int) -> float:
        """Share of the losses' weight in force at a step, in [0, 1]."""
        elapsed = step - self.begin
        return 0.0 if elapsed < 0 else min(1.0, (elapsed + 1) / (self.ramp + 1))

    def forward(self, code: Tensor, shares: GradientShares | None, loss_weight: float) -> Tensor:
        """The code (B, D, h, w) as a loss of this weight sees it."""
        return code


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
