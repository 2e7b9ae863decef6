"""HP's contrast of hidden positives, without a map of all pairs of patches (docs/methods/hp.md 3B.5 to 3B.7)."""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from omh_mmseg.models.losses.contrast_blocks import Contrast, Space, Task
from omh_mmseg.utils.precision import wide_dtype

LEAST_TEMPERATURE = 0.02


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

    No N x N map of numbers ever exists. Similarities, positives and logits are alike from both sides, so that a block
    of pairs of patches serves its rows and its columns: the blocks on and above the diagonal are visited twice, first
    for the sums of each anchor, then for the gradients on z and z_mix, which are kept as (N, D) each. An image without
    anchors contributes 0. Differentiable once, in ``projected`` and ``mixed``.

    Args:
        projected: z, unit rows (N, D) of N = B P patches, image by image.
        mixed: z_mix, likewise.
        features: f_hat, unit rows (N, C).
        ema_code: s_hat, unit rows (N, D').
        agnostic_pool: R_ag, unit rows (M, C).
        specific_pool: R_sp, unit rows (M', D').
        positions: P, patches per image.
        temperature: tau, at least `LEAST_TEMPERATURE`: exponentials are those of the logits as they are.
        specific_weight: lambda, at least 0; with 0 nothing is computed of S.
        random_negatives: (P, N) as of `draw_random_negatives`; None keeps all patches as negatives.
        reweighting: Without it r_a is 1.
        fp16_masks: Legacy: round W and its sums to half precision, and on CUDA make similarities and thresholds in
            half precision, too, as the reference does under its autocast (docs/methods/hp.md 3B.11). The value moves by
            about 5e-5, relatively. A sum that overflows is set to the largest half, 65504.
        chunk_elements: Pairs of each block; by default 2**18 on a CPU and 2**26 elsewhere.
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
    if not temperature >= LEAST_TEMPERATURE or not specific_weight >= 0:
        raise ValueError(
            f'temperature must be at least {LEAST_TEMPERATURE} and specific_weight at least 0; got {temperature} and '
            f'{specific_weight}.'
        )
    if chunk_elements is None:
        chunk_elements = 2**18 if projected.device.type == 'cpu' else 2**26
    wide = wide_dtype(projected)
    product = products or wide
    if products is None and torch.is_autocast_enabled(projected.device.type):
        product = torch.get_autocast_dtype(projected.device.type)
    with torch.autocast(projected.device.type, enabled=False), torch.no_grad():
        compared = torch.float16 if fp16_masks and projected.is_cuda else wide
        searched = [(features, agnostic_pool), (ema_code, specific_pool)][: 2 if specific_weight > 0 else 1]
        pairs = [(vectors.to(compared), pool.to(compared)) for vectors, pool in searched]
        spaces = [Space(vectors, pool_thresholds(vectors, pool)) for vectors, pool in pairs]
    task = Task(
        spaces=spaces,
        positions=positions,
        temperature=temperature,
        specific_weight=specific_weight,
        random_negatives=random_negatives,
        reweighting=reweighting,
        fp16_masks=fp16_masks,
        side=max(1, min(total, isqrt(chunk_elements))),
        product=product,
        differentiate=torch.is_grad_enabled(),
    )
    with torch.autocast(projected.device.type, enabled=False):
        loss, counts = Contrast.apply(projected.to(wide), mixed.to(wide), task)
    return ContrastResult(loss, *(counts / total))
