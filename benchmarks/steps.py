"""What a training step costs: beside the references' manner, and by host and size.

    python benchmarks/steps.py reference     # STEGO's step beside a straight-line one: live, bfloat16, cached
    python benchmarks/steps.py hosts         # time and peak memory by host, batch, resolution, K and N

Models are those of the configs for COCO-Stuff with ViT-S/8 and random weights, OMH past the step from which it reaches
the features. A step is the ``train_step`` of mmengine's loop with the config's optimiser: normalisation of uint8
images, forward, backward, update. Live steps begin with decoded images. A step from the cache begins with the data
loader: reading features from disk and stacking them is part of it; the files are as warm as they get in a training,
that is, in the system's cache if they fit there.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cached import CACHED_DTYPES, CLASSES, build_cache, cached_batches, write_items
from common import (
    MIB,
    Benchmark,
    Prepared,
    Question,
    Rows,
    Verdict,
    interleave,
    measure_apart,
    rise_on,
)
from hosts import (
    BACKBONES,
    HOSTS,
    WITH_OMH,
    build_batch,
    build_model,
    fill_pools,
    host_config,
    on_off,
    total,
    training_step,
)
from straight_line import StraightStep
from torch import Tensor, nn

LIMITS = {'float32': 0.65, 'bfloat16': 0.42, 'cached float32': 0.05, 'cached float16': 0.05}
OMH_LIMIT = 0.10
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
REFERENCE = "references' manner"
LIVE = ('float32', 'bfloat16')
CACHED_STEPS = 5
SETTING = ('host', 'omh', 'source', 'batch', 'image_size', 'classes', 'levels')
LEVELS = 3
EXPONENT_LIMIT, LEAST_MIB = 1.1, 0.1
SMALL, STEADY_BATCH = 2, 8


def reference(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """STEGO's step beside benchmarks/straight_line.py, after one step of both was compared.

    Weights are the same on both sides, images random, steps are taken in turn in one process.
    """
    losses, gradients = difference(args.backbone, args.image_size, 2, args.device)
    verdicts = [
        Verdict(
            f"ours and the references' manner compute the same step: losses to {LOSS_TOLERANCE:g}, gradients of the "
            f'head to {GRADIENT_TOLERANCE:g}',
            f'losses within {losses:.1g}, gradients within {gradients:.1g} of the largest',
            losses <= LOSS_TOLERANCE and gradients <= GRADIENT_TOLERANCE,
        )
    ]
    rows: Rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_items(folder / 'items', args.images, args.image_size)
        for batch in args.batch_sizes:
            torch.manual_seed(0)
            steps = alternatives(args, batch, folder)
            taken = interleave(steps, args.repeats, progress=f'batch {batch}', device=args.device)
            first = taken[REFERENCE]
            for name, sample in taken.items():
                one = sample.per_step(CACHED_STEPS) if name.startswith('cached') else sample
                wall, cpu = one.wall_ms / first.wall_ms, one.cpu_ms / first.cpu_ms
                ratios = dict(wall_ratio=round(wall, 4), cpu_ratio=round(cpu, 4))
                rows.append(dict(batch=batch, **on_off(name), **one.times(), **ratios))
    return rows, verdicts + judge_reference(rows)


def difference(backbone: str, image_size: int, batch: int, device: str) -> tuple[float, float]:
    """Largest deviation of a loss, and of a gradient of the head relative to the largest one, of one equal step."""
    config = host_config(backbone=backbone, image_size=image_size)
    config.model.decode_head.dropout_ratio = 0.0
    torch.manual_seed(0)
    model = build_model(config, device)
    straight = StraightStep(model)
    ready = model.data_preprocessor(build_batch('stego', batch, image_size, model.num_classes, device), training=True)
    # Convolutions of two batch sizes would be rounded differently in TensorFloat-32.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        torch.manual_seed(1)
        theirs = straight.losses(*straightened(ready))
        torch.manual_seed(1)
        ours = model.loss(**ready)
        total(theirs).backward()
        total(ours).backward()
    losses = max(abs(ours[name].item() - value.item()) for name, value in theirs.items())
    head = [*straight.linear.parameters(), *straight.nonlinear.parameters()]
    gradients = [
        (our.grad - their.grad).abs().max() / their.grad.abs().max()
        for our, their in zip(model.decode_head.parameters(), head)
    ]
    return losses, float(torch.stack(gradients).max())


def straightened(ready: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors, neighbours and labels of a normalised batch, as the straight-line step takes them."""
    labels = torch.cat([sample.gt_sem_seg.data for sample in ready['data_samples']])
    return ready['inputs']['anchor'], ready['inputs']['neighbour'], labels


def alternatives(args: argparse.Namespace, batch: int, folder: Path) -> dict[str, Prepared]:
    """All steps of a batch size by name, over the same weights."""
    options = dict(backbone=args.backbone, image_size=args.image_size)
    base = build_model(host_config(**options), args.device)
    data = build_batch('stego', batch, args.image_size, base.num_classes, args.device)
    straight, inputs = StraightStep(base), straightened(base.data_preprocessor(data, training=True))
    result: dict[str, Prepared] = {REFERENCE: lambda: lambda: straight.step(*inputs)}

    def model_of(**more: Any) -> tuple[Any, nn.Module, Callable[[bool, Any], object]]:
        config = host_config('stego', True, **options, **more)
        model = build_model(config, args.device)
        model.load_state_dict(base.state_dict(), strict=False)
        step, head = training_step(model, config), model.omh_head

        def switched(omh: bool, batch: Any) -> object:
            model.omh_head = head if omh else None
            return step(batch)

        return config, model, switched

    # With and without OMH in turn and in one model: what it adds is less than what the machine varies by within a
    # minute, and than what two copies of the same weights differ by in bfloat16.
    for precision in LIVE:
        _, _, step = model_of(precision=precision)
        for omh in (False, True):
            run = partial(step, omh, data)
            result[precision + omh * WITH_OMH] = lambda run=run: run
    for dtype in CACHED_DTYPES:
        config, model, step = model_of()
        batches = cached_batches(model, config, folder / 'items', folder / 'caches', dtype, batch, pairs=True)
        for omh in (False, True):
            run = partial(several, partial(step, omh), batches)
            result[f'cached {dtype}{omh * WITH_OMH}'] = lambda run=run: run
    return result


def several(step: Callable[[Any], object], batches: Iterator[Any]) -> None:
    """Some steps in a row: one alone, after a live step, would find all caches of the processor cold."""
    for _ in range(CACHED_STEPS):
        step(next(batches))


def judge_reference(rows: Rows) -> list[Verdict]:
    """The limits of each kind of step and batch, and of OMH in the live ones."""
    took = {(row['batch'], row['step'], row['omh']): row['wall_ms'] for row in rows}
    verdicts = []
    for row in rows:
        batch, step, limit = row['batch'], row['step'], LIMITS.get(row['step'])
        if limit is None or row['omh'] == 'on':
            continue
        verdicts.append(
            Verdict(
                f"STEGO's step, {step}, batch {batch}: at most {limit:g} of the references' manner",
                f'{row["wall_ratio"]:.3f} ({row["wall_ms"] / 1e3:.2f} s)',
                row['wall_ratio'] <= limit,
            )
        )
        if step in LIVE:
            added = took[batch, step, 'on'] / took[batch, step, 'off'] - 1
            limit = f'OMH adds at most {100 * OMH_LIMIT:.0f} % to it'
            verdicts.append(Verdict(limit, f'{100 * added:+.1f} %', added <= OMH_LIMIT))
    return verdicts


def hosts(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """One factor at a time from STEGO with OMH, live, batch 4, 224 px, 27 classes, 3 levels.

    The batch is varied for each host; K and N are varied from the cache, where the heads are the whole step. Every
    setting runs in processes of its own, one for the time (median of the steps after the first) and one for the memory:
    the rise of the resident memory over that after a step of two images, at its peak in one step, with freed memory
    returned at once; on a GPU that of the allocator. Curves are drawn beside the CSV file.
    """
    found = settings(args)
    with tempfile.TemporaryDirectory() as folder:
        options = {name: getattr(args, name) for name in ('device', 'backbone', 'dtype', 'repeats', 'cached_steps')}
        options |= dict(folder=folder, threads=torch.get_num_threads())
        fill_caches(found, args, Path(folder))
        times, memories = (
            measure_apart(args, [(setting, {**options, 'memory': memory}) for setting in found], hold=not memory)
            for memory in (False, True)
        )
    rows = [{**setting, **time, **memory} for setting, time, memory in zip(found, times, memories)]
    draw(rows, args)
    return rows, judge_hosts(rows, args)


def base_of(args: argparse.Namespace) -> dict[str, Any]:
    """The setting that others differ from in one factor."""
    return dict(zip(SETTING, ('stego', 'on', 'live', args.batch, args.image_size, CLASSES, LEVELS)))


def settings(args: argparse.Namespace) -> Rows:
    """All settings, each once."""
    base = base_of(args)
    found = [{**base, 'host': host, 'batch': batch} for host in args.hosts for batch in args.batch_sizes]
    found += [
        {**base, 'host': host, 'omh': omh, 'source': source}
        for host, omh, source in itertools.product(args.hosts, ('off', 'on'), ('live', 'cached'))
    ]
    found += [{**base, 'image_size': size} for size in args.image_sizes]
    found += [{**base, 'source': 'cached', 'classes': classes} for classes in args.classes]
    found += [{**base, 'source': 'cached', 'levels': levels} for levels in args.levels]
    return [dict(items) for items in dict.fromkeys(tuple(setting.items()) for setting in found)]


def fill_caches(found: Rows, args: argparse.Namespace, folder: Path) -> None:
    """Make what the hosts need from a cache; they share it but for what HP adds."""
    write_items(folder / 'items', args.images, args.image_size)
    for host in dict.fromkeys(setting['host'] for setting in found if setting['source'] == 'cached'):
        torch.manual_seed(0)
        config = host_config(host, backbone=args.backbone, image_size=args.image_size)
        model = build_model(config, args.device)
        build_cache(model, config, folder / 'items', folder / 'caches', args.dtype).complete(progress=False)


def measure_setting(setting: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds or MiB of one setting, in a process of its own."""
    torch.set_num_threads(options['threads'])
    steps_of = build_step(setting, options)
    if options['memory']:
        next(steps_of(SMALL))()
        run = next(steps_of(setting['batch']))
        return dict(peak_mib=round(rise_on(options['device'], run) / MIB, 1))
    steps = steps_of(setting['batch'])
    # Large steps are steadier, and take longer.
    repeats = max(1, options['repeats'] * STEADY_BATCH // setting['batch'])
    repeats *= 1 if setting['source'] == 'live' else options['cached_steps']
    return interleave({'step': lambda: next(steps)}, repeats, device=options['device'])['step'].times()


def build_step(setting: dict[str, Any], options: dict[str, Any]) -> Callable[[int], Iterator[Callable[[], object]]]:
    """A function from a batch size to steps on fresh batches, whose loading from a cache is part of them."""
    torch.manual_seed(0)
    host, size, device = setting['host'], setting['image_size'], options['device']
    config = host_config(host, setting['omh'] == 'on', options['backbone'], size, setting['classes'], setting['levels'])
    model = build_model(config, device)
    if host == 'hp':
        fill_pools(model, size)
    step = training_step(model, config)

    def cached(batch: int) -> Iterator[Callable[[], object]]:
        folder, pairs = Path(options['folder']), host == 'stego'
        batches = cached_batches(model, config, folder / 'items', folder / 'caches', options['dtype'], batch, pairs)
        return itertools.repeat(lambda: step(next(batches)))

    def live(batch: int) -> Iterator[Callable[[], object]]:
        data = build_batch(host, batch, size, setting['classes'], device)
        return itertools.repeat(lambda: step(data))

    return cached if setting['source'] == 'cached' else live


def series(rows: Rows, args: argparse.Namespace, factor: str, **other: Any) -> Rows:
    """Rows that differ from the base in what is named alone, in the order of the factor."""
    fixed = {name: value for name, value in {**base_of(args), **other}.items() if name != factor}
    return sorted((row for row in rows if fixed.items() <= row.items()), key=lambda row: row[factor])


def draw(rows: Rows, args: argparse.Namespace) -> None:
    """Time and memory by batch and host; time by resolution, K and N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 3.4), layout='constrained')
    by_batch, by_memory, *others = figure.subplots(1, 5)
    for axis, key, unit in ((by_batch, 'wall_ms', 'ms'), (by_memory, 'peak_mib', 'MiB')):
        for host in args.hosts:
            found = series(rows, args, 'batch', host=host)
            axis.loglog([row['batch'] for row in found], [max(row[key], LEAST_MIB) for row in found], 'o-', label=host)
        axis.set(xlabel='batch', ylabel=unit, title='Live, with OMH')
        axis.set_xticks(args.batch_sizes, list(map(str, args.batch_sizes)))
        axis.minorticks_off()
        axis.legend()
    factors = (('image_size', 'live'), ('classes', 'cached'), ('levels', 'cached'))
    for axis, (factor, source) in zip(others, factors):
        found = series(rows, args, factor, source=source)
        axis.plot([row[factor] for row in found], [row['wall_ms'] for row in found], 'o-')
        axis.set(xlabel=factor, ylabel='ms', title=f'STEGO + OMH, {source}', ylim=(0, None))
    args.out_dir.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out_dir / f'steps_hosts_{args.machine}.png', dpi=90)


def judge_hosts(rows: Rows, args: argparse.Namespace) -> list[Verdict]:
    """Growth of the memory of each host with its batch: over all batches, and from the last but one to the last."""
    verdicts = []
    for host in args.hosts:
        found = series(rows, args, 'batch', host=host)
        if len(found) < 2:
            continue
        sizes, peaks = (np.log([max(row[key], LEAST_MIB) for row in found]) for key in ('batch', 'peak_mib'))
        fitted, last = np.polyfit(sizes, peaks, 1)[0], (peaks[-1] - peaks[-2]) / (sizes[-1] - sizes[-2])
        verdicts.append(
            Verdict(
                f"peak memory of {host}'s step grows no faster than linearly in the batch",
                f'with its power of {fitted:.2f} over {found[0]["batch"]} to {found[-1]["batch"]} images, {last:.2f} '
                f'at the end; {found[-1]["peak_mib"]:.0f} MiB at {found[-1]["batch"]}',
                bool(max(fitted, last) <= EXPONENT_LIMIT),
            )
        )
    return verdicts


main = Benchmark(
    __file__,
    __doc__,
    dict(
        reference=Question(
            reference,
            "A training step of STEGO and the references' manner",
            repeats=5,
            options=dict(batch_sizes=[4, 16], image_size=224, backbone='vit-s8', images=48),
            quick=dict(repeats=1, batch_sizes=[4], images=16),
            choices=dict(backbone=BACKBONES),
            device='cpu',
        ),
        hosts=Question(
            hosts,
            'A training step by host and size',
            repeats=2,
            options=dict(
                hosts=list(HOSTS), batch=4, batch_sizes=[4, 8, 16, 32], image_size=224, image_sizes=[160, 224, 320],
                classes=[9, 27, 81], levels=[1, 2, 3, 4, 5], dtype='float32', images=24, cached_steps=5,
                backbone='vit-s8',
            ),
            quick=dict(
                repeats=1, batch=2, batch_sizes=[2, 4, 8], image_sizes=[160, 224], classes=[27, 81], levels=[3, 5],
                images=8,
            ),
            choices=dict(hosts=HOSTS, backbone=BACKBONES),
            device='cpu',
            apart=measure_setting,
        ),
    ),
)  # fmt: skip

if __name__ == '__main__':
    main()
