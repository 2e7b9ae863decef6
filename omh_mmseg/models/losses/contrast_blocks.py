"""HP's contrast by blocks of pairs of patches, each of which serves its rows and its columns.

See `hidden_positive_contrast`; docs/methods/hp.md 3B.5 to 3B.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BASE_TEMPERATURE = 0.07
HALF_MAX = torch.finfo(torch.float16).max
HALF_SLOPE = 16.0
TINY = 1e-20
KEPT_BYTES = 2**26
"""Masks and exponentials of so many bytes stay from the first visit to the second; further ones are made again."""


@dataclass(frozen=True)
class Space:
    """Vectors in which positives are searched, and the threshold of each."""

    vectors: Tensor
    thresholds: Tensor

    def positives(self, rows: slice, columns: slice, out: Tensor) -> Tensor:
        """Which pairs are positives, never a patch with itself: boolean (rows, columns)."""
        _product(self.vectors[rows], self.vectors[columns].t(), out)
        # Above either threshold is above the lower one.
        found = out > torch.minimum(self.thresholds[rows, None], self.thresholds[columns])
        if rows == columns:
            found.diagonal().zero_()
        return found


@dataclass
class Task:
    """All that `Contrast` needs beside the tensors that it differentiates."""

    spaces: list[Space]
    positions: int
    temperature: float
    specific_weight: float
    random_negatives: Tensor | None
    reweighting: bool
    fp16_masks: bool
    side: int
    product: torch.dtype
    differentiate: bool
    kept: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)
    exponentials: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)
    kept_bytes: int = 0

    def blocks(self, total: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the blocks on and above the diagonal."""
        starts = range(0, total, self.side)
        for first in starts:
            for second in starts[first // self.side :]:
                yield slice(first, min(first + self.side, total)), slice(second, min(second + self.side, total))

    def masks(self, rows: slice, columns: slice, work: Tensor) -> list[Tensor]:
        """A and, unless its weight is 0, S of a block, boolean."""
        key = (rows.start, columns.start)
        if key in self.kept:
            return self.kept.pop(key)
        made = [space.positives(rows, columns, work) for space in self.spaces]
        if self.has_room(sum(mask.numel() for mask in made)):
            self.kept[key] = made
        return made

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more may stay until the second visit; if so, they are counted."""
        fits = self.differentiate and self.kept_bytes + size <= KEPT_BYTES
        self.kept_bytes += size if fits else 0
        return fits

    def weights(self, masks: list[Tensor], out: Tensor) -> Tensor:
        """W of a block, written to ``out``."""
        if self.fp16_masks:
            half = masks[0].half()
            if len(masks) > 1:
                half += masks[1].half() * self.specific_weight
            return out.copy_(half)
        out.copy_(masks[0].view(torch.uint8))
        return out.add_(masks[1].view(torch.uint8), alpha=self.specific_weight) if len(masks) > 1 else out

    def inside(self, positives: Tensor, rows: slice, columns: slice, out: Tensor) -> Tensor:
        """1 for the pairs in the denominator of their row, 0 for others, written to ``out``; not of the diagonal."""
        if self.random_negatives is None:
            return out.fill_(1)
        places = torch.arange(rows.start, rows.stop, device=positives.device) % self.positions
        drawn = self.random_negatives[:, columns].index_select(0, places)
        return out.copy_(drawn.logical_or_(positives).view(torch.uint8))


@dataclass(frozen=True)
class View:
    """One of z and z_mix: its rows, their sums over the columns, and the gradient on them."""

    rows: Tensor
    exponentials: Tensor
    agreement: Tensor
    gradient: Tensor | None

    def logits(self, rows: slice, columns: slice, temperature: float, out: Tensor) -> Tensor:
        """Logits of a block, written to ``out``."""
        if self.rows.dtype == out.dtype:
            return torch.mm(self.rows[rows] / temperature, self.rows[columns].t(), out=out)
        return _product(self.rows[rows], self.rows[columns].t(), out).div_(temperature)


class Contrast(torch.autograd.Function):
    """The loss, and the numbers of anchors, of A and of S over all patches, of z and z_mix."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, mixed: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        """Both visits; the gradients are made here, too."""
        total = len(projected)
        wanted = [needed and task.differentiate for needed in ctx.needs_input_grad[:2]]
        task.differentiate = any(wanted)
        views = [
            View(
                view.to(task.product), view.new_zeros(total), view.new_zeros(total),
                torch.zeros_like(view) if needed else None,
            )
            for view, needed in zip((projected, mixed), wanted)
        ]  # fmt: skip
        work = projected.new_empty(5, task.side * task.side)
        counts = _sums(task, views, work)
        kept = counts[0] > 0
        sums = counts[0] + task.specific_weight * counts[1]
        if task.fp16_masks:
            sums = counts[2].clamp_max(HALF_MAX).half().to(sums.dtype)
        factors = _factors(task, sums, kept)
        divisors = torch.where(kept, sums, 1)
        loss = projected.new_zeros((), dtype=torch.float64)
        # Below 1 or above it by the rounding of the sum only.
        share = counts[2] / divisors
        for view in views:
            logarithms = torch.where(kept, view.exponentials, 1).log()
            loss -= (factors * (view.agreement / divisors - share * logarithms)).sum(dtype=torch.float64)
        if task.differentiate:
            _add_gradients(task, views, factors, share, divisors, work)
        gradients = [view.gradient for view in views if view.gradient is not None]
        ctx.save_for_backward(*gradients)
        ctx.wanted = wanted
        figures = torch.stack([kept.sum().to(sums), counts[0].sum(), counts[1].sum()])
        ctx.mark_non_differentiable(figures)
        return loss.to(projected.dtype), figures

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor, _figures: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The gradients that were made, times that of the loss."""
        saved = iter(ctx.saved_tensors)
        first, second = (factor * next(saved) if needed else None for needed in ctx.wanted)
        return first, second, None


def _sums(task: Task, views: list[View], work: Tensor) -> Tensor:
    """First visit: the numbers of A and S and the sums of W of each row (3, N), and those of the views."""
    counts = views[0].agreement.new_zeros(3, len(views[0].rows))
    for rows, columns in task.blocks(len(views[0].rows)):
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        weights, row_inside, column_inside, logits, spare = (_shaped(buffer, shape) for buffer in work)
        masks = task.masks(rows, columns, logits)
        task.weights(masks, weights)
        for count, values in zip(counts, [*masks, weights] if len(masks) > 1 else [weights]):
            _add_both(count, rows, columns, values)
        task.inside(masks[0], rows, columns, row_inside)
        if rows != columns:
            task.inside(masks[0].t(), columns, rows, column_inside.t())
        for number, view in enumerate(views):
            view.logits(rows, columns, task.temperature, logits)
            _add_both(view.agreement, rows, columns, torch.mul(logits, weights, out=spare))
            exponentials = _exponentials(logits, rows, columns)
            if view.gradient is not None and task.has_room(exponentials.nbytes):
                task.exponentials[rows.start, columns.start, number] = exponentials.clone()
            view.exponentials[rows] += torch.mul(exponentials, row_inside, out=spare).sum(1)
            if rows != columns:
                view.exponentials[columns] += torch.mul(exponentials, column_inside, out=spare).sum(0)
    if len(task.spaces) == 1:
        counts[2] = counts[0]
    return counts


def _factors(task: Task, sums: Tensor, kept: Tensor) -> Tensor:
    """What the mean log-probability of each anchor counts in the loss (N); 0 where a patch is none."""
    images = kept.view(-1, task.positions)
    number = images.sum(1, keepdim=True).clamp_min(1)
    factors = images.to(sums) * (task.temperature / BASE_TEMPERATURE) / number
    if task.reweighting:
        own = torch.where(kept, sums, 0).view_as(images)
        factors = factors * own / (own.sum(1, keepdim=True) / number).clamp_min(TINY)
    return factors.flatten() / (2 * len(images))


def _add_gradients(
    task: Task, views: list[View], factors: Tensor, share: Tensor, divisors: Tensor, work: Tensor
) -> None:
    """Second visit: gradients on the views, from both sides of each block."""
    largest = factors.max().clamp_min(TINY)
    pull = factors / divisors
    pushes = [torch.where(factors > 0, factors * share / view.exponentials, 0) for view in views]
    for rows, columns in task.blocks(len(factors)):
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        weights, row_inside, column_inside, logits, slope = (_shaped(buffer, shape) for buffer in work)
        masks = task.masks(rows, columns, logits)
        task.weights(masks, weights).mul_(pull[rows, None] + pull[columns])
        task.inside(masks[0], rows, columns, row_inside)
        task.inside(masks[0].t(), columns, rows, column_inside.t())
        for number, (view, push) in enumerate(zip(views, pushes)):
            if view.gradient is None:
                continue
            exponentials = task.exponentials.pop((rows.start, columns.start, number), None)
            if exponentials is None:
                exponentials = _exponentials(view.logits(rows, columns, task.temperature, logits), rows, columns)
            torch.mul(row_inside, push[rows, None], out=slope).addcmul_(column_inside, push[columns])
            slope.mul_(exponentials).sub_(weights)
            scale = 1 / task.temperature
            if task.product == slope.dtype:
                view.gradient[rows].addmm_(slope, view.rows[columns], alpha=scale)
                if rows != columns:
                    view.gradient[columns].addmm_(slope.t(), view.rows[rows], alpha=scale)
                continue
            # Half precision has no place for slopes as small as these, nor for large sums of larger ones.
            magnified, shrink = (slope * (HALF_SLOPE / largest)).to(task.product), scale * largest / HALF_SLOPE
            view.gradient[rows] += (magnified @ view.rows[columns]).to(slope.dtype) * shrink
            if rows != columns:
                view.gradient[columns] += (magnified.t() @ view.rows[rows]).to(slope.dtype) * shrink


def _exponentials(logits: Tensor, rows: slice, columns: slice) -> Tensor:
    """Of the logits, in their place; 0 for a patch with itself."""
    torch.exp(logits, out=logits)
    if rows == columns:
        logits.diagonal().zero_()
    return logits


def _add_both(sums: Tensor, rows: slice, columns: slice, values: Tensor) -> None:
    """Add the sums of a block to those of its rows and, where these are others, of its columns."""
    sums[rows] += values.sum(1, dtype=sums.dtype)
    if rows != columns:
        sums[columns] += values.sum(0, dtype=sums.dtype)


def _shaped(buffer: Tensor, shape: tuple[int, int]) -> Tensor:
    return buffer[: shape[0] * shape[1]].view(shape)


def _product(first: Tensor, second: Tensor, out: Tensor) -> Tensor:
    """Matrix product, written to ``out`` whatever the dtype of the factors."""
    return torch.mm(first, second, out=out) if first.dtype == out.dtype else out.copy_(first @ second)
