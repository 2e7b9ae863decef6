"""HP's contrast of hidden positives, without a map of all pairs of patches (docs/methods/hp.md 3B.5 to 3B.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from omh_mmseg.utils.precision import wide_dtype

BASE_TEMPERATURE = 0.07
HALF_MAX = torch.finfo(torch.float16).max
OUTSIDE = 1e30
HALF_SLOPE = 16.0
TINY = 1e-20


class ContrastResult(NamedTuple):
    """Value of the contrast and what it was made of.

    Attributes:
        loss: L_con, scalar.
        kept: Share of the anchors with a task-agnostic positive, scalar.
        agnostic_positives: Mean number of task-agnostic positives per anchor, scalar.
        specific_positives: Mean number of task-specific positives per anchor, scalar; 0 where their weight is 0, since
            they are not searched then.
    """

    loss: Tensor
    kept: Tensor
    agnostic_positives: Tensor
    specific_positives: Tensor


def pool_thresholds(vectors: Tensor, pool: Tensor, chunk_elements: int = 2**22) -> Tensor:
    """Cosine from which on another patch is a positive: ``t_a = max_j <v_a, R_j>``.

    Args:
        vectors: Unit rows (N, C).
        pool: Reference pool, unit rows (M, C).
        chunk_elements: Elements of each chunk of the N x M products.

    Returns:
        (N,).

    Raises:
        ValueError: If the pool is empty or its rows have another length.

    Source: docs/methods/hp.md 3B.5.
    """
    if pool.dim() != 2 or len(pool) == 0 or pool.shape[1] != vectors.shape[1]:
        raise ValueError(
            f'The reference pool must be (M, {vectors.shape[1]}) with M of at least 1, as the vectors are '
            f'{tuple(vectors.shape)}; got {tuple(pool.shape)}.'
        )
    rows = max(1, chunk_elements // len(pool))
    return torch.cat([(chunk @ pool.t()).amax(1) for chunk in vectors.split(rows)])


def draw_random_negatives(
    positions: int, total: int, rho: float, device: torch.device | str | None = None, chunk_elements: int = 2**22
) -> Tensor | None:
    """Which patches count as negatives of the anchors at each position of any image: ``U < rho``.

    Drawn once per step and shared by the images: anchor p of every image has the same columns. Drawn in chunks of rows
    by the generator of the device, so that the uniform numbers never exist at once.

    Args:
        positions: P, patches per image.
        total: N, patches of the batch.
        rho: Share to keep, in [0, 1]; from 1 on all are kept.
        device: Where to draw.
        chunk_elements: Elements of each chunk of uniform numbers.

    Returns:
        Boolean (P, N), or None where all are kept and nothing is drawn.

    Source: docs/methods/hp.md 3B.5.
    """
    if rho >= 1:
        return None
    kept = torch.empty(positions, total, dtype=torch.bool, device=device)
    for rows in kept.split(max(1, chunk_elements // total)):
        torch.lt(torch.rand(rows.shape, device=device), rho, out=rows)
    return kept


def hidden_positive_contrast(
    projected: Tensor,
    mixed: Tensor,
    features: Tensor,
    ema_code: Tensor,
    agnostic_pool: Tensor,
    specific_pool: Tensor,
    positions: int,
    temperature: float,
    specific_weight: float,
    random_negatives: Tensor | None = None,
    reweighting: bool = True,
    fp16_masks: bool = False,
    chunk_elements: int | None = None,
    products: torch.dtype | None = None,
) -> ContrastResult:
    r"""Contrast of every patch with its hidden positives in the batch, of the code and of the mixed code alike.

    With A and S the task-agnostic and task-specific positives of a patch, :math:`W = A + \lambda S`, D the patches that
    are in A or among the random negatives, and K_i the anchors of image i with a task-agnostic positive,

    .. math::
        l_{ab} = \frac{\langle z_a, z_b \rangle}{\tau}, \qquad
        g_a = \frac{1}{\sum_b W_{ab}} \sum_b W_{ab} \Bigl( l_{ab} - \log \sum_{b' \in D_a} e^{l_{ab'}} \Bigr), \qquad
        L(z) = - \frac{1}{B} \sum_i \frac{1}{|K_i|} \sum_{a \in K_i} \frac{\tau}{0.07} \, g_a r_a

    and :math:`L_{con} = (L(z) + L(z_{mix})) / 2`; r_a is the anchor's sum of W relative to the mean over K_i.

    No N x N map ever exists, nor do the maps of all images together: an image's masks are made, its logits go through a
    few rows at a time, and the gradients on z and z_mix are accumulated on the way, to be kept as (N, D) each. An image
    without anchors contributes 0. Differentiable once, in ``projected`` and ``mixed``.

    Args:
        projected: z, unit rows (N, D) of N = B P patches, image by image.
        mixed: z_mix, likewise.
        features: f_hat, unit rows (N, C).
        ema_code: s_hat, unit rows (N, D').
        agnostic_pool: R_ag, unit rows (M, C).
        specific_pool: R_sp, unit rows (M', D').
        positions: P, patches per image.
        temperature: tau, above 0.
        specific_weight: lambda, at least 0; with 0 nothing is computed of S.
        random_negatives: (P, N) as of `draw_random_negatives`; None keeps all patches as negatives.
        reweighting: Without it r_a is 1.
        fp16_masks: Legacy: round W and its sums to half precision, and on CUDA make similarities and thresholds in
            half precision, too, as the reference does under its autocast (docs/methods/hp.md 3B.11). The value moves by
            about 5e-5, relatively. A sum that overflows is set to the largest half, 65504.
        chunk_elements: Elements of each working buffer (rows of an image) x N; by default 2**21 on a CPU and 2**26
            elsewhere, or those of 128 rows, if these are more: products of fewer rows are slow.
        products: Type of the factors of logits and gradients; that of ``projected``, at least float32, or autocast's,
            by default. Masks, softmax and sums never are in half precision by it.

    Returns:
        See `ContrastResult`; ``loss`` has the dtype of ``projected``, at least float32.

    Raises:
        ValueError: If sizes do not fit, or temperature or weight are out of range.

    Source: docs/methods/hp.md 3B.5 to 3B.7.
    """
    total = len(projected)
    shapes = [tuple(item.shape) for item in (projected, mixed, features, ema_code)]
    if len({shape[0] for shape in shapes}) != 1 or mixed.shape != projected.shape:
        raise ValueError(f'z, z_mix (alike), f and s must have one row per patch; got {shapes}.')
    if positions < 1 or total % positions:
        raise ValueError(f'{total} patches are no whole number of images of {positions} patches.')
    if random_negatives is not None and random_negatives.shape != (positions, total):
        raise ValueError(
            f'random_negatives must be ({positions}, {total}), one row per patch of an image; '
            f'got {tuple(random_negatives.shape)}.'
        )
    if not temperature > 0 or not specific_weight >= 0:
        raise ValueError(
            f'temperature must be above 0 and specific_weight at least 0; got {temperature} and {specific_weight}.'
        )
    if chunk_elements is None:
        chunk_elements = max(2**21 if projected.device.type == 'cpu' else 2**26, 128 * total)
    wide = wide_dtype(projected)
    product = products or wide
    if products is None and torch.is_autocast_enabled(projected.device.type):
        product = torch.get_autocast_dtype(projected.device.type)
    with torch.autocast(projected.device.type, enabled=False), torch.no_grad():
        compared = torch.float16 if fp16_masks and projected.is_cuda else wide
        searched = [(features, agnostic_pool), (ema_code, specific_pool)][: 2 if specific_weight > 0 else 1]
        pairs = [(vectors.to(compared), pool.to(compared)) for vectors, pool in searched]
        spaces = [_Space(vectors, pool_thresholds(vectors, pool)) for vectors, pool in pairs]
    task = _Task(
        spaces=spaces,
        positions=positions,
        temperature=temperature,
        specific_weight=specific_weight,
        random_negatives=random_negatives,
        reweighting=reweighting,
        fp16_masks=fp16_masks,
        rows=max(1, min(positions, chunk_elements // total)),
        product=product,
        differentiate=torch.is_grad_enabled(),
    )
    with torch.autocast(projected.device.type, enabled=False):
        loss, counts = _Contrast.apply(projected.to(wide), mixed.to(wide), task)
    return ContrastResult(loss, *(counts / total))


@dataclass(frozen=True)
class _Space:
    """Vectors in which positives are searched, and the threshold of each."""

    vectors: Tensor
    thresholds: Tensor

    def positives(self, start: int, stop: int, work: Tensor) -> tuple[Tensor, Tensor]:
        """Positives of the patches from start to stop, never a patch itself: boolean (P, N), and how many each has."""
        positives = torch.empty(stop - start, len(self.vectors), dtype=torch.bool, device=work.device)
        counts = work.new_empty(stop - start)
        rows = work.shape[1]
        for first in range(start, stop, rows):
            last = min(first + rows, stop)
            similarity, exceeds = work[:, : last - first]
            _product(self.vectors[first:last], self.vectors.t(), similarity)
            # Above either threshold is above the lower one. Masks stay floats until they are stored: these kernels are
            # several times faster than those of booleans.
            torch.minimum(self.thresholds, self.thresholds[first:last, None], out=exceeds)
            torch.gt(similarity, exceeds, out=exceeds)
            exceeds.diagonal(first).zero_()
            torch.sum(exceeds, 1, out=counts[first - start : last - start])
            positives[first - start : last - start] = exceeds
        return positives, counts


@dataclass(frozen=True)
class _Task:
    """All that `_Contrast` needs beside the tensors that it differentiates."""

    spaces: list[_Space]
    positions: int
    temperature: float
    specific_weight: float
    random_negatives: Tensor | None
    reweighting: bool
    fp16_masks: bool
    rows: int
    product: torch.dtype
    differentiate: bool

    def weights(self, masks: list[Tensor], out: Tensor) -> Tensor:
        """W of the rows of the masks, written to ``out``."""
        if self.fp16_masks:
            half = masks[0].half()
            if len(masks) > 1:
                half += masks[1].half() * self.specific_weight
            return out.copy_(half)
        out.copy_(masks[0].view(torch.uint8))
        return out.add_(masks[1].view(torch.uint8), alpha=self.specific_weight) if len(masks) > 1 else out

    def weight_sums(self, masks: list[Tensor], counts: list[Tensor]) -> Tensor:
        """Sum of W of each anchor (P,), as it divides."""
        if not self.fp16_masks:
            return counts[0] + self.specific_weight * counts[1] if len(counts) > 1 else counts[0]
        chunks = zip(*(mask.split(self.rows) for mask in masks))
        sums = [self.weights(list(chunk), counts[0].new_empty(chunk[0].shape)).sum(1) for chunk in chunks]
        return torch.cat(sums).clamp_max(HALF_MAX).half().to(counts[0].dtype)


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor, mixed: Tensor, task: _Task) -> tuple[Tensor, Tensor]:
        total, images = len(projected), len(projected) // task.positions
        wanted = [needed and task.differentiate for needed in ctx.needs_input_grad[:2]]
        views = [
            _View(view.to(task.product), torch.zeros_like(view) if needed else None)
            for view, needed in zip((projected, mixed), wanted)
        ]
        work = projected.new_empty(4, task.rows, total)
        loss, figures = projected.new_zeros((), dtype=torch.float64), projected.new_zeros(3)
        for start in range(0, total, task.positions):
            positives = [space.positives(start, start + task.positions, work[:2]) for space in task.spaces]
            masks, counts = [mask for mask, _ in positives], [count for _, count in positives]
            kept = counts[0] > 0
            anchors = _rows_to_visit(kept)
            figures[0] += kept.sum()
            for figure, count in zip(figures[1:], counts):
                figure += count.sum()
            if len(anchors):
                loss += _image_loss(task, views, masks, task.weight_sums(masks, counts), kept, anchors, start, work)
        scale = 1 / (images * len(views))
        gradients = [view.gradient for view in views if view.gradient is not None]
        for gradient in gradients:
            gradient *= scale
        ctx.save_for_backward(*gradients)
        ctx.wanted = wanted
        ctx.mark_non_differentiable(figures)
        return (loss * scale).to(projected.dtype), figures

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor, _figures: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        saved = iter(ctx.saved_tensors)
        first, second = (factor * next(saved) if needed else None for needed in ctx.wanted)
        return first, second, None


@dataclass(frozen=True)
class _View:
    """One of z and z_mix: its rows, and the gradient on them."""

    rows: Tensor
    gradient: Tensor | None


def _rows_to_visit(kept: Tensor) -> Tensor:
    """Patches that are anchors; where their number would have to be waited for, all, the others of factor 0."""
    if kept.device.type == 'cpu':
        return kept.nonzero().flatten()
    return torch.arange(len(kept), device=kept.device)


def _image_loss(
    task: _Task,
    views: list[_View],
    masks: list[Tensor],
    sums: Tensor,
    kept: Tensor,
    anchors: Tensor,
    start: int,
    work: Tensor,
) -> Tensor:
    """Sum over the views of one image's loss; the gradients of the views grow by theirs.

    Args:
        task: The settings.
        views: z and z_mix.
        masks: A and, unless its weight is 0, S of the image's patches, boolean (P, N).
        sums: Sum of W of each patch, (P,).
        kept: Which patches of the image have a task-agnostic positive, (P,).
        anchors: Numbers of these, possibly with others among them.
        start: Number of the image's first patch in the batch.
        work: Four working buffers (rows, N).
    """
    number = kept.sum().clamp_min(1)
    factors = kept.to(sums) * (task.temperature / BASE_TEMPERATURE) / number
    if task.reweighting:
        factors *= sums / (torch.where(kept, sums, 0).sum() / number).clamp_min(TINY)
    divisors = torch.where(kept, sums, 1)
    largest = factors.max().clamp_min(TINY)
    loss = sums.new_zeros((), dtype=torch.float64)
    for patches in anchors.split(task.rows):
        weights, outside, logits, spare = work[:, : len(patches)]
        chosen = [mask.index_select(0, patches) for mask in masks]
        task.weights(chosen, weights)
        _penalise_outside(outside, chosen[0], task.random_negatives, patches, start)
        divisor, factor = divisors[patches, None], factors[patches, None]
        # Below 1 or above it by the rounding of the sum only.
        share = weights.sum(1, keepdim=True) / divisor
        for view in views:
            scaled = view.rows[start + patches] / task.temperature
            _product(scaled, view.rows.t(), logits)
            torch.mul(logits, weights, out=spare)
            agreement = spare.sum(1, keepdim=True) / divisor
            logits += outside
            # On a CPU the softmax is many times faster than exp, which stumbles over what underflows. Its largest value
            # is one over the sum of the exponentials, relative to the largest of them.
            probability = torch.softmax(logits, 1, out=spare)
            log_sum = logits.amax(1, keepdim=True) - probability.amax(1, keepdim=True).log()
            loss -= (factor * (agreement - share * log_sum)).sum(dtype=torch.float64)
            if view.gradient is None:
                continue
            slope = probability.mul_(share * factor).addcmul_(weights, factor / divisor, value=-1)
            if task.product == sums.dtype:
                view.gradient.index_add_(0, start + patches, slope @ view.rows, alpha=1 / task.temperature)
                view.gradient.addmm_(slope.t(), scaled)
                continue
            # Half precision has no place for slopes as small as these, nor for large sums of larger ones.
            magnified = (slope * (HALF_SLOPE / largest)).to(task.product)
            shrink = largest / HALF_SLOPE
            of_anchors = (magnified @ view.rows).to(sums.dtype) * (shrink / task.temperature)
            view.gradient.index_add_(0, start + patches, of_anchors)
            view.gradient.add_((magnified.t() @ scaled).to(sums.dtype) * shrink)
    return loss


def _penalise_outside(
    out: Tensor, positives: Tensor, random_negatives: Tensor | None, patches: Tensor, start: int
) -> None:
    """Write 0 for the patches that are in the denominator and a number that no exponential survives for all others."""
    if random_negatives is None:
        out.zero_()
    else:
        inside = random_negatives.index_select(0, patches).logical_or_(positives)
        out.copy_(inside.view(torch.uint8)).sub_(1).mul_(OUTSIDE)
    out[torch.arange(len(patches), device=out.device), start + patches] = -OUTSIDE


def _product(first: Tensor, second: Tensor, out: Tensor) -> Tensor:
    """Matrix product, written to ``out`` whatever the dtype of the factors."""
    return torch.mm(first, second, out=out) if first.dtype == out.dtype else out.copy_(first @ second)
