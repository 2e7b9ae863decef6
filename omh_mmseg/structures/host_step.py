"""What the hosts give to the base that trains them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class HostStep(NamedTuple):
    """What a host computed of one batch.

    Attributes:
        losses: Its losses and figures by name, scalars.
        codes: The whole code (N, D, h, w) that the losses were computed on.
        code: Its first rows (B, D, h, w), which belong to the B labelled images; probes and OMH see these.
    """

    losses: dict[str, Tensor]
    codes: Tensor
    code: Tensor
