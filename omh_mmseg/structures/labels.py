"""Labels of a batch, and the label of pixels without a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

IGNORED_LABEL = 255
"""Label of pixels that belong to no class: neither trained on nor scored, in files and in memory."""


def stacked_labels(data_samples: Sequence[Any], code: Tensor) -> Tensor:
    """Labels (B, H, W); images without one count as ignored, on the grid of the code (B, D, h, w) if none has one."""
    labels = [sample.gt_sem_seg.data.squeeze(0) if 'gt_sem_seg' in sample else None for sample in data_samples]
    known = next((label for label in labels if label is not None), None)
    if known is None:
        known = torch.zeros(code.shape[-2:], dtype=torch.long, device=code.device)
    return torch.stack([torch.full_like(known, IGNORED_LABEL) if label is None else label for label in labels])
