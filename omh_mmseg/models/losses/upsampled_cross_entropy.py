"""Cross-entropy of logits upsampled to the pixels of a label, a few rows of pixels at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from omh_mmseg.transport.checks import may_look_at

SMALLEST = -86.0
"""Binary logit relative to the largest from which on powers are taken with care: float32 has none below -126."""


def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    rows: Tensor | None = None,
    chunk_elements: int | None = None,
    class_weights: Tensor | None = None,
    over_all: bool = False,
) -> Tensor:
    r"""Mean cross-entropy of ``F.interpolate(logits, labels.shape[-2:], mode='bilinear')``.

    Bilinear interpolation U is a product of one matrix per axis, so that logits of a few rows of pixels are one matrix
    product with the few coarse rows that these lie between, and the gradient on the coarse logits is
    :math:`U^T (\mathrm{softmax}(U z) - \mathrm{onehot}(y))`. Both are made in one go over rows that fit into the
    processor's cache; the logits of all pixels never exist. Differentiable once.

    Args:
        logits: z, (B, K, h, w), in float32 or float64.
        labels: y, (B, H, W) integers; values outside 0..K-1 are ignored.
        rows: Numbers (n,) of the rows of pixels that count; None for all.
        chunk_elements: Logits of each chunk of rows; by default 2**18 on a CPU and 2**26 elsewhere.
        class_weights: (K), without gradient: factors on the terms of the pixels of each class; None for 1.
        over_all: Divide by the number of all pixels that count, those without a label included.

    Returns:
        Scalar, 0 where no label counts; NaN where logits are.

    Source: docs/methods/features.md 2.4, docs/methods/stego.md 3A.5.
    """
    if chunk_elements is None:
        chunk_elements = 2**18 if logits.device.type == 'cpu' else 2**26
    with torch.autocast(logits.device.type, enabled=False):
        options = chunk_elements, torch.is_grad_enabled(), class_weights, over_all
        return _CrossEntropy.apply(logits, labels, rows, *options)


@functools.lru_cache(maxsize=32)
def interpolation(inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Linear interpolation along one axis as a matrix (inputs, outputs), as ``F.interpolate`` does it."""
    with torch.inference_mode(False), torch.no_grad():
        nodes = torch.eye(inputs, dtype=dtype, device=device)
        return F.interpolate(nodes[None], size=outputs, mode='linear', align_corners=False)[0]


def _parts(vertical: Tensor, step: int, looks: bool) -> Iterator[tuple[slice, slice]]:
    """Rows of pixels, so many at a time, and the coarse rows that they lie between: all, where nobody looks."""
    takes = (vertical != 0).numpy() if looks else np.ones(vertical.shape, dtype=bool)
    for first in range(0, vertical.shape[1], step):
        part = slice(first, first + step)
        used = np.flatnonzero(takes[:, part].any(1))
        yield part, slice(int(used[0]), int(used[-1]) + 1)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        rows: Tensor | None,
        chunk_elements: int,
        differentiate: bool,
        class_weights: Tensor | None,
        over_all: bool,
    ) -> Tensor:
        (_, classes, height, width), size = logits.shape, labels.shape[-2:]
        vertical, horizontal = (
            interpolation(one, other, logits.dtype, logits.device) for one, other in zip((height, width), size)
        )
        if rows is not None:
            vertical, labels = vertical.index_select(1, rows), labels.index_select(1, rows)
        valid = (labels >= 0) & (labels < classes)
        count = labels.numel() if over_all else valid.sum().clamp_min(1)
        targets = torch.where(valid, labels.long(), 0)
        counted = valid.to(logits) if class_weights is None else valid * class_weights.to(logits)[targets]
        # The softmax does not change, and no interpolated logit is above 0. A power of two takes a CPU a third of exp's
        # time.
        lowered = (logits - logits.amax(1, keepdim=True)) / math.log(2)
        # Where the answer would have to be waited for, care is cheaper.
        looks, smallest = may_look_at(logits), lowered.amin()
        careful = not looks or bool(smallest < SMALLEST)
        labelled = valid.flatten(1).any(1).tolist() if looks else [True] * len(labels)
        stretched = lowered @ horizontal  # (B, K, h, W)
        slopes = torch.zeros_like(stretched) if differentiate and ctx.needs_input_grad[0] else None
        # What is not finite shows, also where no label counts.
        total = 0 * smallest.double()
        for part, between in _parts(vertical, max(1, chunk_elements // (classes * size[1])), looks):
            down = vertical[between, part].t()
            places = torch.arange(len(down) * size[1], device=logits.device)
            for image in (image for image, counts in enumerate(labelled) if counts):
                pixels = (down @ stretched[image, :, between]).flatten(1)  # (K, rows * W)
                chosen = (targets[image, part].flatten() * len(places)).add_(places)
                weights = counted[image, part].flatten()
                if careful:
                    pixels -= pixels.amax(0)
                own = pixels.view(-1).index_select(0, chosen)
                # On a CPU, powers take many times as long where the result underflows.
                powers = (pixels.clamp_min_(SMALLEST) if careful else pixels).exp2_()
                sums = powers.sum(0)
                total += ((sums.log2() - own) * weights).sum(dtype=torch.float64)
                if slopes is not None:
                    powers.mul_(weights / sums).view(-1).index_add_(0, chosen, weights, alpha=-1)
                    slopes[image, :, between] += down.t() @ powers.view(classes, -1, size[1])
        if slopes is not None:
            ctx.save_for_backward(slopes @ horizontal.t() / count)
        return (math.log(2) * total / count).to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return factor * gradient, *(None,) * 6
