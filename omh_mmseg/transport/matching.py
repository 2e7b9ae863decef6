"""Transport of activations along a plan by max-pooling (OMH.md section 2, "Matching")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DIRECTIONS = ('fine_to_coarse', 'coarse_to_fine', 'both')
CONDITIONINGS = ('row', 'none')


def condition_plan(plan: Tensor, conditioning: str = 'row') -> Tensor:
    """Condition a plan on its rows: ``T~_ij = T_ij / sum_j T_ij``.

    Args:
        plan: Shape (K_lower, K_higher).
        conditioning: ``'row'`` (rows sum to 1) or ``'none'`` (the raw plan).

    Returns:
        Same shape.

    Raises:
        ValueError: On an unknown conditioning.
    """
    if conditioning not in CONDITIONINGS:
        raise ValueError(f'conditioning must be one of {CONDITIONINGS}; got {conditioning!r}.')
    if conditioning == 'none':
        return plan
    return plan / plan.sum(1, keepdim=True)


def transport_activations(activations: Tensor, plan: Tensor, chunk_elements: int | None = None) -> Tensor:
    """Max-pooled transport ``b_pj = max_i a_pi T_ij``.

    Positions are processed in chunks in the forward pass and only the winning lower cluster of each (p, j) is kept,
    so that no P x K_lower x K_higher tensor ever exists. Differentiable once, in both arguments; where several
    lower clusters tie, the gradient goes to one of them.

    Args:
        activations: Activations a of the lower level, shape (P, K_lower).
        plan: Conditioned or raw plan, shape (K_lower, K_higher).
        chunk_elements: Elements of the largest temporary; by default 2**18 on a CPU, whose cache then holds it, and
            2**25 elsewhere.

    Returns:
        Transported activations b, shape (P, K_higher).

    Raises:
        ValueError: If the shapes do not fit.
    """
    if activations.dim() != 2 or plan.dim() != 2 or activations.shape[1] != plan.shape[0]:
        raise ValueError(
            'activations (P, K_lower) and plan (K_lower, K_higher) do not fit: got '
            f'{tuple(activations.shape)} and {tuple(plan.shape)}.'
        )
    if chunk_elements is None:
        chunk_elements = 2**18 if activations.device.type == 'cpu' else 2**25
    chunk = max(1, chunk_elements // plan.numel())
    return _MaxTransport.apply(activations, plan, chunk)


class _MaxTransport(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activations: Tensor, plan: Tensor, chunk: int) -> Tensor:
        positions, higher = activations.shape[0], plan.shape[1]
        transported = activations.new_empty(positions, higher)
        index_dtype = torch.uint8 if plan.shape[0] <= 256 else torch.int16 if plan.shape[0] <= 32768 else torch.int64
        winners = torch.empty(positions, higher, dtype=index_dtype, device=activations.device)
        for start in range(0, positions, chunk):
            rows = slice(start, start + chunk)
            values, indices = (activations[rows, :, None] * plan).max(dim=1)
            transported[rows] = values
            winners[rows] = indices.to(index_dtype)
        ctx.save_for_backward(activations, plan, winners)
        return transported

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        activations, plan, winners = ctx.saved_tensors
        indices = winners.long()
        to_activations = to_plan = None
        if ctx.needs_input_grad[0]:
            to_activations = torch.zeros_like(activations)
            to_activations.scatter_add_(1, indices, gradient * plan.gather(0, indices))
        if ctx.needs_input_grad[1]:
            to_plan = torch.zeros_like(plan)
            to_plan.scatter_add_(0, indices, gradient * activations.gather(1, indices))
        return to_activations, to_plan, None


def matching_distance(
    coarse_activations: Tensor,
    fine_activations: Tensor,
    plan: Tensor,
    direction: str = 'fine_to_coarse',
    conditioning: str = 'row',
) -> Tensor:
    """Disagreement of two levels under a plan: ``mean_p sum_j |b_pj - a^higher_pj|``.

    Args:
        coarse_activations: Shape (P, K_coarse), rows on the simplex.
        fine_activations: Shape (P, K_fine), rows on the simplex.
        plan: Shape (K_coarse, K_fine).
        direction: ``'fine_to_coarse'`` transports the fine activations to the coarse level, ``'coarse_to_fine'`` the
            reverse; ``'both'`` is the mean of the two.
        conditioning: See `condition_plan`; the lower (transported) level is the one conditioned on.

    Returns:
        Scalar.

    Raises:
        ValueError: On unknown options or shapes that do not fit.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f'direction must be one of {DIRECTIONS}; got {direction!r}.')
    distances = []
    if direction in ('fine_to_coarse', 'both'):
        moved = transport_activations(fine_activations, condition_plan(plan.t(), conditioning))
        distances.append((moved - coarse_activations).abs().sum(1).mean())
    if direction in ('coarse_to_fine', 'both'):
        moved = transport_activations(coarse_activations, condition_plan(plan, conditioning))
        distances.append((moved - fine_activations).abs().sum(1).mean())
    return torch.stack(distances).mean()
