"""Float32 inside: what must not be computed in half precision, whatever the autocast state."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(values: Tensor) -> torch.dtype:
    """float32, or the type of the values where that is wider."""
    return torch.promote_types(values.dtype, torch.float32)


def widened(values: Tensor) -> Tensor:
    """The values in `wide_dtype`; themselves where they have it."""
    return values.to(wide_dtype(values))
