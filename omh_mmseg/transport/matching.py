"""Transport of activations along a plan by max-pooling (docs/methods/omh.md 2.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from omh_mmseg.transport.checks import check_devices, check_matrix, check_plan, may_look_at
from omh_mmseg.utils.precision import wide_dtype

DIRECTIONS = ('fine_to_coarse', 'coarse_to_fine', 'both')
CONDITIONINGS = ('row', 'none')
TARGETS = ('none', 'lower', 'higher')


def condition_plan(plan: Tensor, conditioning: str = 'row') -> Tensor:
    """Condition a plan on its rows: ``T~_ij = T_ij / sum_j T_ij``.

    Args:
        plan: Shape (K_lower, K_higher).
        conditioning: ``'row'`` (rows sum to 1) or ``'none'`` (the raw plan).

    Returns:
        Same shape.

    Raises:
        ValueError: On an unknown conditioning, or a plan that is no matrix of masses or, to be conditioned, has an
            empty row.
    """
    if conditioning not in CONDITIONINGS:
        raise ValueError(f'conditioning must be one of {CONDITIONINGS}; got {conditioning!r}.')
    check_plan(plan)
    if conditioning == 'none':
        return plan
    mass = plan.sum(1, keepdim=True)
    if may_look_at(plan) and not bool((mass > 0).all()):
        row = int((mass.flatten() > 0).int().argmin())
        raise ValueError(f'row {row} of the plan has no mass, so that nothing can be conditioned on its cluster.')
    return plan / mass


def transport_activations(activations: Tensor, plan: Tensor, chunk_elements: int | None = None) -> Tensor:
    """Max-pooled transport ``b_pj = max_i a_pi T_ij``.

    Only the winner of each (p, j) is kept, so that no P x K_lower x K_higher tensor ever exists. On a CPU the products
    of a few positions at a time are made, elsewhere the lower clusters are folded in one after another; the results
    are the same, bit by bit. Differentiable once, in both arguments; where several lower clusters tie, the gradient
    goes to the first of them.

    Args:
        activations: Activations a of the lower level, shape (P, K_lower).
        plan: Conditioned or raw plan, shape (K_lower, K_higher).
        chunk_elements: Elements of each working buffer; by default 2**18 on a CPU, whose cache then holds it, and 2**25
            elsewhere.

    Returns:
        Transported activations b, shape (P, K_higher).

    Raises:
        ValueError: If shapes or devices do not fit, something is no floating-point number, or the plan is no matrix of
            masses.
    """
    check_matrix('activations', activations)
    check_plan(plan)
    if activations.shape[1] != plan.shape[0]:
        raise ValueError(
            'activations (P, K_lower) and plan (K_lower, K_higher) do not fit: got '
            f'{tuple(activations.shape)} and {tuple(plan.shape)}.'
        )
    check_devices(activations=activations, plan=plan)
    if chunk_elements is None:
        chunk_elements = 2**18 if activations.device.type == 'cpu' else 2**25
    if chunk_elements < 1:
        raise ValueError(f'chunk_elements must be at least 1; got {chunk_elements}.')
    return _MaxTransport.apply(activations, plan, chunk_elements)


def _winners_on_host(activations: Tensor, plan: Tensor, elements: int) -> Tensor:
    """Lower cluster with the largest product for each (p, j), the first of those that tie: int64 (P, K_higher).

    NumPy's arg-max along a contiguous axis is vectorised, unlike torch's on a CPU.
    """
    positions, (lower, higher) = len(activations), plan.shape
    weights = plan.t().contiguous()  # (K_higher, K_lower)
    block = max(1, min(higher, elements // lower))
    chunk = max(1, min(positions, elements // (block * lower)))
    winners = torch.empty(positions, higher, dtype=torch.int64)
    buffer = activations.new_empty(chunk, block, lower)
    for first in range(0, higher, block):
        some = weights[first : first + block]
        for start in range(0, positions, chunk):
            rows = activations[start : start + chunk, None]  # (chunk, 1, K_lower)
            products = torch.mul(rows, some, out=buffer[: len(rows), : len(some)])
            products.numpy().argmax(-1, out=winners.numpy()[start : start + chunk, first : first + block])
    return winners


def _largest(columns: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum and winner, (K_higher, P) each, of activations (K_lower, P) and a plan (K_lower, K_higher, 1)."""
    best = weights[0] * columns[0]
    product, raised, winner = torch.empty_like(best), torch.empty_like(best), torch.zeros_like(best)
    for cluster in range(1, len(weights)):
        torch.mul(weights[cluster], columns[cluster], out=product)
        torch.maximum(best, product, out=raised)
        # Masks and cluster numbers stay floats: these kernels are several times faster than those of boolean masks,
        # integers, or a maximum that returns indices.
        product.gt_(best).mul_(cluster)
        torch.maximum(winner, product, out=winner)
        best, raised = raised, best
    return best, winner


class _MaxTransport(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activations: Tensor, plan: Tensor, elements: int) -> Tensor:
        positions, (lower, higher) = activations.shape[0], plan.shape
        ctx.chunk = chunk = max(1, elements // higher)
        wide = wide_dtype(activations)
        index_dtype = torch.uint8 if lower <= 256 else torch.int16 if lower <= 32768 else torch.int64
        if may_look_at(plan):
            wide_activations, wide_plan = activations.to(wide), plan.to(wide)
            numbers = _winners_on_host(wide_activations, wide_plan, elements)
            products = wide_activations.gather(1, numbers).mul_(wide_plan.gather(0, numbers))
            ctx.save_for_backward(activations, plan, numbers.to(index_dtype))
            return products.to(activations.dtype)
        weights = plan.to(wide)[:, :, None]  # (K_lower, K_higher, 1)
        transported = activations.new_empty(positions, higher)
        winners = torch.empty(positions, higher, dtype=index_dtype, device=activations.device)
        for start in range(0, positions, chunk):
            rows = slice(start, start + chunk)
            best, winner = _largest(activations[rows].t().to(wide).contiguous(), weights)
            transported[rows] = best.t()
            winners[rows] = winner.t().to(index_dtype)
        ctx.save_for_backward(activations, plan, winners)
        return transported

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        activations, plan, winners = ctx.saved_tensors
        to_activations = torch.zeros_like(activations) if ctx.needs_input_grad[0] else None
        to_plan = torch.zeros_like(plan) if ctx.needs_input_grad[1] else None
        for start in range(0, len(winners), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            indices = winners[rows].long()
            if to_activations is not None:
                pulled = gradient[rows] * plan.gather(0, indices)
                to_activations[rows].scatter_add_(1, indices, pulled.to(to_activations.dtype))
            if to_plan is not None:
                pulled = gradient[rows] * activations[rows].gather(1, indices)
                to_plan.scatter_add_(0, indices, pulled.to(to_plan.dtype))
        return to_activations, to_plan, None


def matching_distance(
    coarse_activations: Tensor,
    fine_activations: Tensor,
    plan: Tensor,
    direction: str = 'fine_to_coarse',
    conditioning: str = 'row',
    target: str = 'none',
) -> Tensor:
    """Disagreement of two levels under a plan: ``mean_p sum_j |b_pj - a^higher_pj|``.

    Args:
        coarse_activations: Shape (P, K_coarse), rows on the simplex.
        fine_activations: Shape (P, K_fine), rows on the simplex.
        plan: Shape (K_coarse, K_fine).
        direction: ``'fine_to_coarse'`` transports the fine activations to the coarse level, ``'coarse_to_fine'`` the
            reverse; ``'both'`` is the mean of the two.
        conditioning: See `condition_plan`; the lower (transported) level is the one conditioned on.
        target: ``'lower'`` keeps the gradient from the transported activations, ``'higher'`` from those that they are
            compared with; ``'none'`` from neither.

    Returns:
        Scalar.

    Raises:
        ValueError: On unknown options, shapes that do not fit, and what `transport_activations` refuses.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f'direction must be one of {DIRECTIONS}; got {direction!r}.')
    if target not in TARGETS:
        raise ValueError(f'target must be one of {TARGETS}; got {target!r}.')
    sizes = (coarse_activations.shape[1:], fine_activations.shape[1:])
    if sizes != (plan.shape[:1], plan.shape[1:]) or len(coarse_activations) != len(fine_activations):
        raise ValueError(
            'activations (P, K_coarse) and (P, K_fine) of the same positions and plan (K_coarse, K_fine) do not fit: '
            f'got {tuple(coarse_activations.shape)}, {tuple(fine_activations.shape)} and {tuple(plan.shape)}.'
        )
    for name, activations in (('coarse_activations', coarse_activations), ('fine_activations', fine_activations)):
        check_matrix(name, activations)
    distances = []
    for lower, higher, lower_to_higher, name in (
        (fine_activations, coarse_activations, plan.t(), 'fine_to_coarse'),
        (coarse_activations, fine_activations, plan, 'coarse_to_fine'),
    ):
        if direction in (name, 'both'):
            if target == 'lower':
                lower = lower.detach()
            elif target == 'higher':
                higher = higher.detach()
            moved = transport_activations(lower, condition_plan(lower_to_higher, conditioning))
            distances.append((moved - higher).abs().sum(1).mean())
    return torch.stack(distances).mean()
