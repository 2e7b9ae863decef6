"""Time and peak memory of the matching loss, beside the forms that build a P x K_lower x K_higher tensor.

    python benchmarks/lean_matching.py

Time: forward and backward of mean_p sum_j |b_pj - a_pj| to both activations, alternatives in turn in one process.
Memory: each alternative in a fresh process; the rise of the resident memory over that of the inputs at its peak
(``rss_mib``), and beside it the peak of what the tensors occupy by torch's profiler (``tensors_mib``).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from common import (
    CODE_CHANNELS,
    LEVEL_SIZES,
    POSITIONS_PER_IMAGE,
    Verdict,
    finish,
    gains,
    interleave,
    parser,
    positive,
    span,
    start,
    times,
)
from memory import MIB, add_apart_option, measure_apart, measured_apart, peak_rise, tensor_peak
from torch import Tensor

from omh_mmseg.transport import condition_plan, hierarchy_plans, transport_activations

TEMPERATURE = 0.1


def naive_amax(activations: Tensor, plan: Tensor) -> Tensor:
    """The formula in one line; ties share the gradient."""
    return (activations[:, :, None] * plan).amax(1)


def naive_max(activations: Tensor, plan: Tensor) -> Tensor:
    """The same with the arg-max kept, whose backward pass is cheaper."""
    return (activations[:, :, None] * plan).max(1).values


ALTERNATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = dict(
    lean=transport_activations, naive_amax=naive_amax, naive_max=naive_max
)

NAIVE = ('naive_amax', 'naive_max')
DIRECTIONS = ('fine_to_coarse', 'coarse_to_fine')


def build_inputs(positions: int, coarse: int, fine: int, direction: str) -> tuple[Tensor, Tensor, Tensor]:
    """Activations of the lower and of the higher level and the plan conditioned on the lower one."""
    generator = torch.Generator().manual_seed(0)
    code = F.normalize(torch.randn(positions, CODE_CHANNELS, generator=generator), dim=1)
    centres = [torch.randn(size, CODE_CHANNELS, generator=generator) for size in (coarse, fine)]
    activations = [torch.softmax(code @ F.normalize(item, dim=1).t() / TEMPERATURE, 1) for item in centres]
    plan = hierarchy_plans(centres, 0.05)[0].plan
    if direction == 'fine_to_coarse':
        return activations[1], activations[0], condition_plan(plan.t())
    return activations[0], activations[1], condition_plan(plan)


def forward_backward(name: str, lower: Tensor, higher: Tensor, plan: Tensor) -> None:
    """One step of the matching loss on leaves that require gradients."""
    (ALTERNATIVES[name](lower, plan) - higher).abs().sum(1).mean().backward()


def measure_memory(name: str, positions: int, coarse: int, fine: int, direction: str, threads: int) -> dict[str, float]:
    """Peak memory over the inputs in MiB; to be called in a fresh process."""
    torch.set_num_threads(threads)
    small = build_inputs(64, coarse, fine, direction)
    forward_backward(name, small[0].requires_grad_(), small[1].requires_grad_(), small[2])
    lower, higher, plan = build_inputs(positions, coarse, fine, direction)
    lower.requires_grad_(), higher.requires_grad_()
    gc.collect()
    resident = peak_rise(lambda: forward_backward(name, lower, higher, plan))
    lower.grad = higher.grad = None
    tensors = tensor_peak(lambda: forward_backward(name, lower, higher, plan))
    return dict(rss_mib=resident / MIB, tensors_mib=tensors / MIB)


def prepare(name: str, inputs: tuple[Tensor, Tensor, Tensor]) -> Callable[[], Callable[[], None]]:
    """For `interleave`: fresh leaves each time."""

    def fresh() -> Callable[[], None]:
        lower, higher = (item.clone().requires_grad_() for item in inputs[:2])
        return lambda: forward_backward(name, lower, higher, inputs[2])

    return fresh


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=5)
    options.add_argument('--batch-sizes', type=positive, nargs='+', default=[16, 32])
    options.add_argument('--positions', type=positive, default=POSITIONS_PER_IMAGE, help='positions per image')
    options.add_argument('--levels', type=positive, nargs='+', default=list(LEVEL_SIZES), help='K_1 .. K_N')
    options.add_argument('--directions', choices=DIRECTIONS, nargs='+', default=list(DIRECTIONS))
    options.add_argument('--naive', choices=NAIVE, nargs='+', default=list(NAIVE), help='forms to compare with')
    add_apart_option(options)
    args = options.parse_args(argv)
    if measured_apart(args, measure_memory):
        return []
    environment = start(args)
    forms = ['lean', *args.naive]
    rows: list[dict[str, Any]] = []
    cases = []
    for batch in args.batch_sizes:
        for coarse, fine in zip(args.levels, args.levels[1:]):
            for direction in args.directions:
                case = (batch * args.positions, coarse, fine, direction)
                inputs = build_inputs(*case)
                label = f'{coarse} and {fine} clusters, {direction}, batch {batch}'
                samples = interleave({form: prepare(form, inputs) for form in forms}, args.repeats, progress=label)
                for form in forms:
                    cases.append((form, *case, environment['threads']))
                    rows.append(
                        dict(
                            batch=batch,
                            positions=case[0],
                            coarse=coarse,
                            fine=fine,
                            direction=direction,
                            form=form,
                            **times(samples[form]),
                        )
                    )
    for row, memory in zip(rows, measure_apart(__file__, cases)):
        row.update({key: round(value, 2) for key, value in memory.items()})
    return finish('lean_matching', 'Matching: forward and backward', rows, environment, args, judge(rows, len(forms)))


def judge(rows: Sequence[dict[str, Any]], forms: int) -> list[Verdict]:
    """Compare each lean row with the better naive one of its case."""
    gain = gains(rows, forms, ('tensors_mib', 'rss_mib', 'wall_ms', 'cpu_ms'))
    return [
        Verdict(
            "lean matching takes at most a tenth of the leaner naive form's peak memory",
            f'{span(gain["rss_mib"])} less resident memory, {span(gain["tensors_mib"])} less held by tensors',
            min(*gain['rss_mib'], *gain['tensors_mib']) >= 10,
        ),
        Verdict(
            'lean matching is no slower than the faster naive form',
            f'{span(gain["wall_ms"])} as fast, {span(gain["cpu_ms"])} by processor time',
            min(*gain['wall_ms'], *gain['cpu_ms']) >= 1,
        ),
    ]


if __name__ == '__main__':
    main()
