"""How strongly a loss pulls at the code."""

from __future__ import annotations

import torch
from torch import Tensor

HALF_SCALE = 2.0**12


def gradient_norm(loss: Tensor, code: Tensor) -> Tensor:
    """Norm of a loss's gradient on the code, 0 where it does not depend on it.

    Args:
        loss: Scalar whose graph is kept.
        code: Any shape.

    Returns:
        Scalar without gradient, in float32 or wider.
    """
    # In float16 gradients of single positions would vanish.
    scale = HALF_SCALE if code.dtype == torch.float16 else 1.0
    if not loss.requires_grad:
        return code.new_zeros((), dtype=torch.float32)
    (gradient,) = torch.autograd.grad(scale * loss, code, retain_graph=True, allow_unused=True)
    if gradient is None:
        return code.new_zeros((), dtype=torch.float32)
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).norm() / scale


def relative_to(norm: Tensor, loss: Tensor, code: Tensor) -> Tensor:
    """The loss, scaled so that its gradient on the code has a given norm; 0 where it has no gradient.

    Args:
        norm: Scalar without gradient.
        loss: Scalar.
        code: What the loss was computed from.
    """
    own = gradient_norm(loss, code)
    return loss * torch.where(own > 0, norm / own.clamp_min(torch.finfo(own.dtype).tiny), own)
