"""Time and peak memory of SmooSeg's smoothness energy, beside the form that builds B x P x P tensors.

    python benchmarks/smoothness_energy.py

Time: forward and backward of both energies of a batch to its soft assignments, the two forms in turn in one process.
Memory: each in a fresh process; the rise of the resident memory over that of the inputs at its peak (``rss_mib``), and
beside it the peak of what the tensors occupy by torch's profiler (``tensors_mib``).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from common import Verdict, finish, gains, interleave, parser, positive, span, start, times
from memory import MIB, add_apart_option, measure_apart, measured_apart, peak_rise, tensor_peak
from torch import Tensor

from omh_mmseg.models.losses import SmoothnessEnergyLoss

SHIFTS = (-0.02, 0.5)


def moments(features: Tensor, assignments: Tensor, permutation: Tensor) -> Tensor:
    """The library's form."""
    return torch.stack(list(SmoothnessEnergyLoss(*SHIFTS)(features, assignments, permutation).values())).sum()


def pairs(features: Tensor, assignments: Tensor, permutation: Tensor) -> Tensor:
    """METHODS.md 3C.3 as it stands, by batched matrix products."""
    f, y = (F.normalize(item.flatten(2), dim=1, eps=1e-10) for item in (features, assignments))
    total = y.new_zeros(())
    for (other_f, other_y), shift in zip(((f, y), (f[permutation], y[permutation])), SHIFTS):
        with torch.no_grad():
            closeness = torch.bmm(f.transpose(1, 2), other_f)
            mean = closeness.mean()
            closeness -= closeness.mean(2, keepdim=True)
            closeness += mean - closeness.mean() - shift
        total = total + (closeness * (1 - torch.bmm(y.transpose(1, 2), other_y))).mean()
    return total


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = dict(moments=moments, pairs=pairs)


def build_inputs(batch: int, side: int, channels: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, assignments and a permutation."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, channels, side, side, generator=generator)
    assignments = (5 * torch.randn(batch, classes, side, side, generator=generator)).softmax(1)
    return features, assignments, torch.arange(batch).roll(1)


def forward_backward(name: str, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    """One step of the energy on assignments that require gradients."""
    FORMS[name](*inputs).backward()


def measure_memory(name: str, batch: int, side: int, channels: int, classes: int, threads: int) -> dict[str, float]:
    """Peak memory over the inputs in MiB; to be called in a fresh process."""
    torch.set_num_threads(threads)
    small, inputs = build_inputs(2, 4, channels, classes), build_inputs(batch, side, channels, classes)
    small[1].requires_grad_(), inputs[1].requires_grad_()
    forward_backward(name, small)
    gc.collect()
    resident = peak_rise(lambda: forward_backward(name, inputs))
    inputs[1].grad = None
    return dict(rss_mib=resident / MIB, tensors_mib=tensor_peak(lambda: forward_backward(name, inputs)) / MIB)


def prepare(name: str, inputs: tuple[Tensor, Tensor, Tensor]) -> Callable[[], Callable[[], None]]:
    """For `interleave`: fresh leaves each time."""

    def fresh() -> Callable[[], None]:
        leaf = inputs[1].clone().requires_grad_()
        return lambda: forward_backward(name, (inputs[0], leaf, inputs[2]))

    return fresh


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=3)
    options.add_argument('--batch-sizes', type=positive, nargs='+', default=[32])
    options.add_argument('--sides', type=positive, nargs='+', default=[28, 40], help='positions along a side')
    options.add_argument('--channels', type=positive, nargs='+', default=[384, 768])
    options.add_argument('--classes', type=positive, nargs='+', default=[27, 3])
    add_apart_option(options)
    args = options.parse_args(argv)
    if measured_apart(args, measure_memory):
        return []
    environment = start(args)
    names = ('batch', 'side', 'channels', 'classes')
    settings = [
        (batch, side, channels, classes)
        for batch in args.batch_sizes
        for side in args.sides
        for channels in args.channels
        for classes in args.classes
    ]
    rows: list[dict[str, Any]] = []
    for setting in settings:
        inputs = build_inputs(*setting)
        described = dict(zip(names, setting))
        label = ', '.join(f'{name} {value}' for name, value in described.items())
        samples = interleave({form: prepare(form, inputs) for form in FORMS}, args.repeats, progress=label)
        for form, sample in samples.items():
            rows.append(dict(**described, form=form, **times(sample)))
    cases = [(row['form'], *(row[name] for name in names), environment['threads']) for row in rows]
    for row, memory in zip(rows, measure_apart(__file__, cases)):
        row.update({key: round(value, 2) for key, value in memory.items()})
    title = 'Smoothness energy: forward and backward'
    return finish('smoothness_energy', title, rows, environment, args, judge(rows))


def judge(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """Compare each row of the library's form with the one of all pairs."""
    gain = gains(rows, len(FORMS), ('tensors_mib', 'rss_mib', 'wall_ms', 'cpu_ms'))
    return [
        Verdict(
            "the energy takes at most a quarter of the all-pairs form's peak memory",
            f'{span(gain["rss_mib"])} less resident memory, {span(gain["tensors_mib"])} less held by tensors',
            min(*gain['rss_mib'], *gain['tensors_mib']) >= 4,
        ),
        Verdict(
            'the energy is no slower than the all-pairs form',
            f'{span(gain["wall_ms"])} as fast, {span(gain["cpu_ms"])} by processor time',
            min(*gain['wall_ms'], *gain['cpu_ms']) >= 1,
        ),
    ]


if __name__ == '__main__':
    main()
