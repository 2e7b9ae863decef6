"""Time and peak memory of the library's losses, each beside the form that follows its formula word by word.

    python benchmarks/lean_forms.py matching     # OMH's matching, beside a P x K_lower x K_higher tensor
    python benchmarks/lean_forms.py energy       # SmooSeg's energy, beside B x P x P tensors
    python benchmarks/lean_forms.py contrast     # HP's contrast, beside maps of all pairs kept for the backward pass

Time: forward and backward to what requires gradients, the forms in turn in one process. Memory: each form in a fresh
process; the rise of the resident memory over that of the inputs at its peak (``rss_mib``), and beside it the peak of
what the tensors occupy by torch's profiler (``tensors_mib``).
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import (
    CODE_CHANNELS,
    LEVEL_SIZES,
    MIB,
    POSITIONS_PER_IMAGE,
    Benchmark,
    Prepared,
    Question,
    Rows,
    Verdict,
    interleave,
    measure_apart,
    peak_rise,
)
from torch import Tensor

from omh_mmseg.models.losses import SmoothnessEnergyLoss
from omh_mmseg.models.losses.hidden_positive_contrast import draw_random_negatives, hidden_positive_contrast
from omh_mmseg.transport import hierarchy_plans
from omh_mmseg.transport.matching import condition_plan, transport_activations

TEMPERATURE = 0.1
DIRECTIONS = ('fine_to_coarse', 'coarse_to_fine')
SHIFTS = (-0.02, 0.5)
FEATURES, CODE, POOL, OBJECTS = 384, 512, 2048, 40
CONTRAST_TEMPERATURE, SPECIFIC_WEIGHT, RHO = 0.8, 0.5, 0.02
LIMIT_GIB = 24


def matching_inputs(positions: int, coarse: int, fine: int, direction: str, **_: Any) -> list[Any]:
    """Activations of the lower and of the higher level and the plan conditioned on the lower one."""
    generator = torch.Generator().manual_seed(0)
    code = F.normalize(torch.randn(positions, CODE_CHANNELS, generator=generator), dim=1)
    centres = [torch.randn(size, CODE_CHANNELS, generator=generator) for size in (coarse, fine)]
    activations = [torch.softmax(code @ F.normalize(item, dim=1).t() / TEMPERATURE, 1) for item in centres]
    plan = hierarchy_plans(centres, 0.05)[0].plan
    if direction == 'fine_to_coarse':
        return [activations[1], activations[0], condition_plan(plan.t())]
    return [activations[0], activations[1], condition_plan(plan)]


def matched(transport: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The matching loss with a form of transport: mean_p sum_j |b_pj - a_pj|."""
    return lambda lower, higher, plan: (transport(lower, plan) - higher).abs().sum(1).mean()


def energy_inputs(batch: int, side: int, channels: int, classes: int) -> list[Any]:
    """Features, assignments and a permutation."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, channels, side, side, generator=generator)
    assignments = (5 * torch.randn(batch, classes, side, side, generator=generator)).softmax(1)
    return [features, assignments, torch.arange(batch).roll(1)]


def moments(features: Tensor, assignments: Tensor, permutation: Tensor) -> Tensor:
    """The library's form of the energy."""
    return torch.stack(list(SmoothnessEnergyLoss(*SHIFTS)(features, assignments, permutation).values())).sum()


def pairs(features: Tensor, assignments: Tensor, permutation: Tensor) -> Tensor:
    """docs/methods/smooseg.md 3C.3 as it stands, by batched matrix products."""
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


def contrast_inputs(batch: int, patches: int) -> list[Any]:
    """Patches of a few kinds of objects and pools of less alike ones: about 2.5 % of the pairs are positives."""
    generator = torch.Generator().manual_seed(0)

    def like(count: int, kinds: Tensor, spread: float) -> Tensor:
        chosen = kinds[torch.randint(len(kinds), (count,), generator=generator)]
        return F.normalize(chosen + spread * torch.randn(chosen.shape, generator=generator), dim=1)

    of_features, of_code = (torch.randn(OBJECTS, size, generator=generator) for size in (FEATURES, CODE))
    z, z_mix, s = (like(patches, of_code, 1.0) for _ in range(3))
    pools = like(POOL, of_features, 2.0), like(POOL, of_code, 2.0)
    torch.manual_seed(0)
    kept = draw_random_negatives(patches // batch, patches, RHO)
    return [z, z_mix, like(patches, of_features, 1.0), s, *pools, patches // batch, kept]


def lean_contrast(
    z: Tensor, z_mix: Tensor, f: Tensor, s: Tensor, pool_f: Tensor, pool_s: Tensor, positions: int, kept: Tensor
) -> Tensor:
    """The library's form of the contrast."""
    options = (positions, CONTRAST_TEMPERATURE, SPECIFIC_WEIGHT, kept)
    return hidden_positive_contrast(z, z_mix, f, s, pool_f, pool_s, *options).loss


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
            logits = view[rows] @ view.t() / CONTRAST_TEMPERATURE
            logits = (logits - logits.amax(1, keepdim=True).detach())[anchors]
            log_probability = logits - torch.log((logits.exp() * inside).sum(1, keepdim=True))
            terms = (weights * log_probability).sum(1) / sums * sums / sums.mean()
            total = total - (CONTRAST_TEMPERATURE / 0.07 * terms).mean()
    return total / (len(z) // positions) / 2


@dataclass(frozen=True)
class Comparison:
    """Forms of one loss.

    Attributes:
        forms: From inputs to the loss, the library's first.
        inputs: Of a case.
        leaves: Numbers of the inputs that require gradients.
        small: What makes a case a small one, to warm up.
        gain: How many times less memory the library's form must take.
    """

    forms: dict[str, Callable[..., Tensor]]
    inputs: Callable[..., list[Any]]
    leaves: tuple[int, ...]
    small: dict[str, int]
    gain: int


# The formula of matching in one line, where ties share the gradient, and with the arg-max kept, which is cheaper.
COMPARISONS = dict(
    matching=Comparison(
        dict(
            lean=matched(transport_activations),
            naive_amax=matched(lambda activations, plan: (activations[:, :, None] * plan).amax(1)),
            naive_max=matched(lambda activations, plan: (activations[:, :, None] * plan).max(1).values),
        ),
        matching_inputs,
        leaves=(0, 1),
        small=dict(positions=64),
        gain=10,
    ),
    energy=Comparison(dict(moments=moments, pairs=pairs), energy_inputs, (1,), dict(batch=2, side=4), gain=4),
    contrast=Comparison(
        dict(lean=lean_contrast, straightforward=straightforward),
        contrast_inputs,
        leaves=(0, 1),
        small=dict(batch=2, patches=32),
        gain=4,
    ),
)


def with_leaves(loss: str, inputs: Sequence[Any], copy: bool = False) -> list[Any]:
    """Inputs of which some require gradients."""
    leaves = COMPARISONS[loss].leaves
    return [
        (item.clone() if copy else item).requires_grad_() if number in leaves else item
        for number, item in enumerate(inputs)
    ]


def tensor_peak(run: Callable[[], object]) -> int:
    """Bytes that the tensors made by something occupy at its peak, by torch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / 'trace.json'
        profile.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())['traceEvents'] if event.get('name') == '[memory]']
    held = peak = 0
    for event in sorted(events, key=lambda event: event['ts']):
        held += event['args']['Bytes']
        peak = max(peak, held)
    return peak


def measure_memory(loss: str, form: str, case: dict[str, Any], threads: int, profile: bool) -> dict[str, Any]:
    """Time and peak memory over the inputs of one step, in a fresh process."""
    torch.set_num_threads(threads)
    comparison = COMPARISONS[loss]
    run = comparison.forms[form]
    small = with_leaves(loss, comparison.inputs(**{**case, **comparison.small}))
    run(*small).backward()
    inputs = with_leaves(loss, comparison.inputs(**case))
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    resident = peak_rise(lambda: run(*inputs).backward())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    figures: dict[str, Any] = dict(wall_ms=round(1e3 * wall, 2), cpu_ms=round(1e3 * cpu, 2))
    figures |= dict(rss_mib=round(resident / MIB, 2), tensors_mib='')
    if profile:
        for number in comparison.leaves:
            inputs[number].grad = None
        figures['tensors_mib'] = round(tensor_peak(lambda: run(*inputs).backward()) / MIB, 2)
    return figures


def compare(
    args: argparse.Namespace, loss: str, cases: Sequence[dict[str, Any]], alone: Sequence[dict[str, Any]] = ()
) -> tuple[Rows, list[Verdict]]:
    """Rows of all forms of each case, and of the library's form alone of some, measured once; and what is required."""
    comparison = COMPARISONS[loss]
    own, *others = comparison.forms
    forms = [own, *getattr(args, 'others', others)]
    rows: Rows = []
    for case in cases:
        inputs = comparison.inputs(**case)

        def prepare(form: str, inputs: list[Any] = inputs) -> Prepared:
            def fresh() -> Callable[[], object]:
                ready = with_leaves(loss, inputs, copy=True)
                return lambda: comparison.forms[form](*ready).backward()

            return fresh

        label = ', '.join(f'{name} {value}' for name, value in case.items())
        taken = interleave({form: prepare(form) for form in forms}, args.repeats, progress=label)
        rows += [dict(case, form=form, **sample.times()) for form, sample in taken.items()]
    threads, compared = torch.get_num_threads(), len(rows)
    jobs = [(loss, form, case, threads, True) for case in cases for form in forms]
    jobs += [(loss, own, case, threads, False) for case in alone]
    rows += [dict(case, form=own) for case in alone]
    # A time out of turn counts where there is no other.
    rows = [row | {key: value for key, value in figures.items() if key not in row}
            for row, figures in zip(rows, measure_apart(args, jobs))]  # fmt: skip
    return rows, judge(loss, rows[:compared], len(forms))


def judge(loss: str, rows: Rows, forms: int) -> list[Verdict]:
    """The first form of each case beside the best of the others."""
    gains: dict[str, list[float]] = {}
    for index in range(0, len(rows), forms):
        own, *others = rows[index : index + forms]
        for figure in ('rss_mib', 'tensors_mib', 'wall_ms', 'cpu_ms'):
            best = min(other[figure] for other in others)
            gains.setdefault(figure, []).append(best / max(own[figure], 1e-3))
    said = {figure: f'{min(values):.1f} to {max(values):.1f} times' for figure, values in gains.items()}
    factor = COMPARISONS[loss].gain
    return [
        Verdict(
            f'the {loss} takes at most 1/{factor} of the peak memory of its plain form',
            f'{said["rss_mib"]} less resident memory, {said["tensors_mib"]} less held by tensors',
            min(*gains['rss_mib'], *gains['tensors_mib']) >= factor,
        ),
        Verdict(
            f'the {loss} is no slower than its plain form',
            f'{said["wall_ms"]} as fast, {said["cpu_ms"]} by processor time',
            min(*gains['wall_ms'], *gains['cpu_ms']) >= 1,
        ),
    ]


def matching(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """OMH's matching loss in both directions."""
    cases = [
        dict(batch=batch, positions=batch * args.positions, coarse=coarse, fine=fine, direction=direction)
        for batch in args.batch_sizes
        for coarse, fine in zip(args.levels, args.levels[1:])
        for direction in args.directions
    ]
    return compare(args, 'matching', cases)


def energy(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Both energies of SmooSeg."""
    settings = itertools.product(args.batch_sizes, args.sides, args.channels, args.classes)
    return compare(args, 'energy', [dict(zip(('batch', 'side', 'channels', 'classes'), one)) for one in settings])


def contrast(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """HP's contrast at the shapes of ViT-S/8; the plain form takes 0.6 GB at batch 8 and 40 GB at batch 64."""
    cases, alone = (
        [dict(batch=batch, patches=batch * args.positions) for batch in sizes]
        for sizes in (args.batch_sizes, args.lean_batch_sizes)
    )
    rows, verdicts = compare(args, 'contrast', cases, alone)
    largest = max((row for row in rows if row['form'] == 'lean'), key=lambda row: row['batch'])
    needed = largest['rss_mib'] / 1024
    return rows, [
        *verdicts,
        Verdict(
            f'the lean contrast of the largest batch fits in {LIMIT_GIB} GiB',
            f'{largest["patches"]} patches take {needed:.1f} GiB over their inputs',
            needed < LIMIT_GIB,
        ),
    ]


main = Benchmark(
    __file__,
    __doc__,
    dict(
        matching=Question(
            matching,
            'Matching: forward and backward',
            repeats=5,
            options=dict(
                batch_sizes=[16, 32], positions=POSITIONS_PER_IMAGE, levels=list(LEVEL_SIZES),
                directions=list(DIRECTIONS), others=['naive_amax', 'naive_max'],
            ),
            quick=dict(repeats=2, batch_sizes=[16]),
            choices=dict(directions=DIRECTIONS, others=['naive_amax', 'naive_max']),
            apart=measure_memory,
        ),
        energy=Question(
            energy,
            'Smoothness energy: forward and backward',
            repeats=3,
            options=dict(batch_sizes=[32], sides=[28, 40], channels=[384, 768], classes=[27, 3]),
            quick=dict(repeats=1, sides=[28], channels=[384]),
            apart=measure_memory,
        ),
        contrast=Question(
            contrast,
            'Contrast of hidden positives: forward and backward',
            repeats=2,
            options=dict(batch_sizes=[8], lean_batch_sizes=[64], positions=POSITIONS_PER_IMAGE),
            quick=dict(repeats=1, lean_batch_sizes=[16]),
            apart=measure_memory,
        ),
    ),
)  # fmt: skip

if __name__ == '__main__':
    main()
