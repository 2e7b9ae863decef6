"""How strongly a loss pulls at the code, and losses that pull at it in proportion to others."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from omh_mmseg.utils.precision import widened

HALF_SCALE = 2.0**12


def code_gradient(loss: Tensor, code: Tensor) -> Tensor:
    """A loss's gradient on the code, in float32 or wider and of its shape; 0 where it does not depend on it.

    Args:
        loss: Scalar whose graph is kept.
        code: Any shape.
    """
    # In float16 gradients of single positions would vanish.
    scale = HALF_SCALE if code.dtype == torch.float16 else 1.0
    gradient = None
    if loss.requires_grad:
        (gradient,) = torch.autograd.grad(scale * loss, code, retain_graph=True, allow_unused=True)
    return widened(torch.zeros_like(code) if gradient is None else gradient).detach() / scale


class GradientShares:
    r"""Lets further losses pull at a code with a set share of the strength of those that it was made for.

    With the gradient g of what was computed from the code itself, and the gradients :math:`g_i` that branches of
    weight :math:`w_i` pass back, the code passes on

    .. math:: g + \sum_i w_i \frac{\|g\|}{\|g_i\|} g_i

    Branches keep their gradients back until that of the code is complete. No loss is differentiated twice, nothing
    is computed before the backward pass, and a factor on all losses (loss scaling) plays no part.

    Args:
        code: (B, ...), before its backward pass.
    """

    def __init__(self, code: Tensor) -> None:
        self.code = code
        self._kept: list[tuple[float, Tensor]] = []
        if code.requires_grad:
            # Not a method: the code would hold the hook, and the hook the code.
            code.register_hook(partial(_add_kept, self._kept))

    def branch(self, weight: float, rows: int) -> Tensor:
        """The first rows of the code, for a loss of its own.

        Args:
            weight: Norm of its gradient, relative to that of the code's own, at least 0.
            rows: Number of leading rows.
        """
        return _KeepBack.apply(self.code, self._kept, weight)[:rows]


def _add_kept(kept: list[tuple[float, Tensor]], gradient: Tensor) -> Tensor:
    total, strength = gradient, widened(gradient).norm()
    for weight, branch in kept:
        wide = widened(branch)
        norm = wide.norm()
        scale = torch.where(norm > 0, weight * strength / norm.clamp_min(torch.finfo(norm.dtype).tiny), norm)
        total = total + (scale * wide).to(gradient)
    kept.clear()
    return total


class _KeepBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, code: Tensor, kept: list[tuple[float, Tensor]], weight: float) -> Tensor:
        ctx.kept, ctx.weight = kept, weight
        return code.view_as(code)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.kept.append((ctx.weight, gradient))
        return torch.zeros_like(gradient), None, None


def gradient_figures(host: Tensor, added: dict[str, Tensor], code: Tensor) -> dict[str, Tensor]:
    """Norm of the host's gradient on the code, those of OMH's losses relative to it, and their cosines with it.

    Those are of what each loss adds to the host's gradient: alone, a loss that is given a share of it has none. A
    cosine below 0 says that the host works against the loss; that of a loss which adds nothing is 0.
    """
    host_gradient = code_gradient(host, code)
    pull = host_gradient.norm()
    figures = {'code_gradient_host': pull}
    for name, loss in added.items():
        if name.startswith('loss_') and loss.requires_grad:
            short = name.removeprefix('loss_')
            difference = code_gradient(host + loss, code) - host_gradient
            figures[f'code_gradient_{short}'] = difference.norm() / pull.clamp_min(torch.finfo(pull.dtype).tiny)
            figures[f'code_cosine_{short}'] = F.cosine_similarity(difference.flatten(), host_gradient.flatten(), dim=0)
    return figures
