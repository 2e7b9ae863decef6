"""Time and peak memory of HP's contrast, beside the form that keeps every image's maps for the backward pass.

    python benchmarks/hidden_positive_loss.py                          # both forms at batch 8, the lean one at 64, too
    python benchmarks/hidden_positive_loss.py --batch-sizes 8 16 --lean-batch-sizes 32 64

Shapes are those of ViT-S/8 at 224 x 224: 784 patches per image, 384 features, code of 512. Time: forward and backward
to z and z_mix, alternatives in turn in one process. Memory: each alternative in a fresh process; the rise of the
resident memory over that of the inputs at its peak (``rss_mib``), and beside it the peak of what the tensors occupy by
torch's profiler (``tensors_mib``). The straightforward form takes about 16 bytes for each of the N x N pairs, 0.6 GB at
batch 8 and 40 GB at batch 64, and is run where ``--batch-sizes`` says so alone.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from common import POSITIONS_PER_IMAGE, Verdict, finish, gains, interleave, parser, positive, span, start, times
from memory import MIB, add_apart_option, measure_apart, measured_apart, peak_rise, tensor_peak
from torch import Tensor

from omh_mmseg.models.losses import draw_random_negatives, hidden_positive_contrast

FEATURES, CODE, POOL = 384, 512, 2048
TEMPERATURE, SPECIFIC_WEIGHT, RHO = 0.8, 0.5, 0.02
OBJECTS = 40
LIMIT_GIB = 24


def straightforward(
    z: Tensor, z_mix: Tensor, f: Tensor, s: Tensor, pool_f: Tensor, pool_s: Tensor, positions: int, kept: Tensor
) -> Tensor:
    """The formulas image by image, differentiated automatically: all images' maps live until the backward pass."""
    limit_f, limit_s = ((vectors @ pool.t()).amax(1) for vectors, pool in ((f, pool_f), (s, pool_s)))
    total = z.new_zeros(())
    for first in range(0, len(z), positions):
        rows = slice(first, first + positions)
        others = torch.ones(positions, len(z), dtype=torch.bool)
        others.diagonal(first).fill_(False)
        masks = []
        for vectors, limit in ((f, limit_f), (s, limit_s)):
            cosine = vectors[rows] @ vectors.t()
            masks.append(((cosine > limit[rows, None]) | (cosine > limit)) & others)
        anchors = masks[0].any(1)
        weights = (masks[0].to(z.dtype) + SPECIFIC_WEIGHT * masks[1].to(z.dtype))[anchors]
        sums = weights.sum(1)
        inside = ((masks[0] | kept) & others)[anchors].to(z.dtype)
        for view in (z, z_mix):
            logits = view[rows] @ view.t() / TEMPERATURE
            logits = (logits - logits.amax(1, keepdim=True).detach())[anchors]
            log_probability = logits - torch.log((logits.exp() * inside).sum(1, keepdim=True))
            terms = (weights * log_probability).sum(1) / sums * sums / sums.mean()
            total = total - (TEMPERATURE / 0.07 * terms).mean()
    return total / (len(z) // positions) / 2


def lean(
    z: Tensor, z_mix: Tensor, f: Tensor, s: Tensor, pool_f: Tensor, pool_s: Tensor, positions: int, kept: Tensor
) -> Tensor:
    """The library's form with the same arguments."""
    return hidden_positive_contrast(
        z, z_mix, f, s, pool_f, pool_s, positions, TEMPERATURE, SPECIFIC_WEIGHT, kept
    ).loss


FORMS: dict[str, Callable[..., Tensor]] = dict(lean=lean, straightforward=straightforward)


def build_inputs(batch: int, positions: int) -> list[Any]:
    """Patches of a few kinds of objects and pools of less alike ones: about 2.5 % of the pairs are positives."""
    generator = torch.Generator().manual_seed(0)

    def patches(count: int, kinds: Tensor, spread: float) -> Tensor:
        chosen = kinds[torch.randint(len(kinds), (count,), generator=generator)]
        return F.normalize(chosen + spread * torch.randn(chosen.shape, generator=generator), dim=1)

    total = batch * positions
    of_features, of_code = (torch.randn(OBJECTS, size, generator=generator) for size in (FEATURES, CODE))
    z, z_mix, s = (patches(total, of_code, 1.0) for _ in range(3))
    pools = patches(POOL, of_features, 2.0), patches(POOL, of_code, 2.0)
    torch.manual_seed(0)
    kept = draw_random_negatives(positions, total, RHO)
    return [z, z_mix, patches(total, of_features, 1.0), s, *pools, positions, kept]


def forward_backward(form: str, inputs: Sequence[Any]) -> None:
    """One step to leaves that require gradients."""
    FORMS[form](*inputs).backward()


def measure_memory(form: str, batch: int, positions: int, threads: int, profile: bool) -> dict[str, float]:
    """Peak memory over the inputs in MiB, and seconds; to be called in a fresh process."""
    torch.set_num_threads(threads)
    small = build_inputs(2, 16)
    small[0].requires_grad_(), small[1].requires_grad_()
    forward_backward(form, small)
    inputs = build_inputs(batch, positions)
    inputs[0].requires_grad_(), inputs[1].requires_grad_()
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    resident = peak_rise(lambda: forward_backward(form, inputs))
    figures = dict(rss_mib=resident / MIB, wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu)
    if profile:
        inputs[0].grad = inputs[1].grad = None
        figures['tensors_mib'] = tensor_peak(lambda: forward_backward(form, inputs)) / MIB
    return figures


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=2)
    options.add_argument('--batch-sizes', type=positive, nargs='+', default=[8], help='for both forms')
    options.add_argument('--lean-batch-sizes', type=positive, nargs='*', default=[64], help='for the lean form alone')
    options.add_argument('--positions', type=positive, default=POSITIONS_PER_IMAGE, help='patches per image')
    add_apart_option(options)
    args = options.parse_args(argv)
    if measured_apart(args, measure_memory):
        return []
    environment = start(args)
    rows: list[dict[str, Any]] = []
    for batch in args.batch_sizes:
        inputs = build_inputs(batch, args.positions)
        samples = interleave({form: prepare(form, inputs) for form in FORMS}, args.repeats, progress=f'batch {batch}')
        del inputs
        for form in FORMS:
            rows.append(dict(batch=batch, patches=batch * args.positions, form=form, **times(samples[form])))
    cases = [(row['form'], row['batch'], args.positions, environment['threads'], True) for row in rows]
    cases += [('lean', batch, args.positions, environment['threads'], False) for batch in args.lean_batch_sizes]
    memories = measure_apart(__file__, cases)
    for row, memory in zip(rows, memories):
        row.update({key: round(memory[key], 1) for key in ('rss_mib', 'tensors_mib')})
    for batch, memory in zip(args.lean_batch_sizes, memories[len(rows) :]):
        rows.append(
            dict(
                batch=batch,
                patches=batch * args.positions,
                form='lean',
                wall_ms=round(1e3 * memory['wall_s'], 2),
                cpu_ms=round(1e3 * memory['cpu_s'], 2),
                rss_mib=round(memory['rss_mib'], 1),
                tensors_mib='',
            )
        )
    title = 'Contrast of hidden positives: forward and backward'
    verdicts = judge(rows, len(FORMS) * len(args.batch_sizes))
    return finish('hidden_positive_loss', title, rows, environment, args, verdicts)


def prepare(form: str, inputs: Sequence[Any]) -> Callable[[], Callable[[], None]]:
    """For `interleave`: fresh leaves each time."""

    def fresh() -> Callable[[], None]:
        leaves = [item.clone().requires_grad_() for item in inputs[:2]]
        return lambda: forward_backward(form, [*leaves, *inputs[2:]])

    return fresh


def judge(rows: Sequence[dict[str, Any]], compared: int) -> list[Verdict]:
    """Compare the forms of each batch, and the largest lean run with the memory of a machine."""
    gain = gains(rows[:compared], len(FORMS), ('tensors_mib', 'rss_mib', 'wall_ms', 'cpu_ms'))
    largest = max((row for row in rows if row['form'] == 'lean'), key=lambda row: row['batch'])
    return [
        Verdict(
            "the lean contrast takes at most a quarter of the straightforward form's peak memory",
            f'{span(gain["rss_mib"])} less resident memory, {span(gain["tensors_mib"])} less held by tensors',
            min(*gain['rss_mib'], *gain['tensors_mib']) >= 4,
        ),
        Verdict(
            'the lean contrast is no slower than the straightforward form',
            f'{span(gain["wall_ms"])} as fast, {span(gain["cpu_ms"])} by processor time',
            min(*gain['wall_ms'], *gain['cpu_ms']) >= 1,
        ),
        Verdict(
            f'the lean contrast of the largest batch fits in {LIMIT_GIB} GiB',
            f'{largest["patches"]} patches take {largest["rss_mib"] / 1024:.1f} GiB over their inputs',
            largest['rss_mib'] / 1024 < LIMIT_GIB,
        ),
    ]


if __name__ == '__main__':
    main()
