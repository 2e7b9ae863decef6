"""What plans and activations must be; values are looked at where that does not make the host wait for a device."""

from __future__ import annotations

import torch
from torch import Tensor


def may_look_at(values: Tensor) -> bool:
    """Whether the values are where looking at them makes nobody wait."""
    return values.device.type == 'cpu'


def check_matrix(name: str, values: Tensor) -> None:
    """Raise ValueError if a tensor is no non-empty matrix of floating-point numbers."""
    if values.dim() != 2 or values.numel() == 0 or not values.is_floating_point():
        raise ValueError(
            f'{name} must be a non-empty matrix of floating-point numbers; got {values.dtype} {tuple(values.shape)}.'
        )


def check_plan(plan: Tensor, name: str = 'plan') -> None:
    """Raise ValueError if a tensor is no matrix of masses: finite, at least 0 and not all 0."""
    check_matrix(name, plan)
    if may_look_at(plan):
        low, high = (float(value) for value in torch.aminmax(plan.detach()))
        if not 0 <= low <= high < torch.inf or high == 0:
            raise ValueError(f'{name} must be finite, at least 0 and not all 0; its range is [{low:.3g}, {high:.3g}].')


def check_devices(**tensors: Tensor) -> None:
    """Raise ValueError if tensors are on several devices."""
    if len({tensor.device for tensor in tensors.values()}) > 1:
        listed = ', '.join(f'{name} on {tensor.device}' for name, tensor in tensors.items())
        raise ValueError(f'all must be on one device; got {listed}.')
