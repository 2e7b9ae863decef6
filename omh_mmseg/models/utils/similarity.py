"""Cosines of a code with centres."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.utils.precision import wide_dtype


def code_similarity(code: Tensor, centres: Tensor) -> Tensor:
    """Cosines of a code (B, D, h, w) with centres (K, D): (B, K, h, w) in [-1, 1], never in half precision."""
    wide = wide_dtype(code)
    with torch.autocast(code.device.type, enabled=False):
        code = F.normalize(code.to(wide), dim=1)
        centres = F.normalize(centres.to(wide), dim=1)
        return F.conv2d(code, centres[:, :, None, None])


def centre_scores(code: Tensor, centres: Tensor, normalise: bool = True) -> Tensor:
    """Dot products of a code (B, D, h, w) with unit centres: (B, K, h, w), of the same arg-max as the cosines.

    With ``normalise=False`` the centres keep their lengths.
    """
    rows = centres.to(code.dtype)
    return F.conv2d(code, (F.normalize(rows, dim=1) if normalise else rows)[:, :, None, None])
