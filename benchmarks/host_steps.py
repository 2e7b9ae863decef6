"""Time and peak memory of a training step against batch, resolution, K, N and host: live and from the cache.

    python benchmarks/host_steps.py

One factor at a time is varied from a base: STEGO with OMH past ``start_iteration``, live, batch 4, 224 px, 27 classes,
3 levels, the model of the configs for COCO-Stuff with ViT-S/8 and random weights. The batch is varied for each host; K
and N are varied from the cache, where the heads are the whole step. Every setting runs in processes of its own, one for
the time (median of the steps after the first) and one for the memory: the rise of the resident memory over that after a
step of two images, at its peak in one step, with freed memory returned at once; on a GPU that of the allocator. The
curves are drawn beside the CSV file.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cached import CLASSES, build_cache, cached_batches, write_items
from common import Verdict, finish, interleave, parser, positive, start, times
from hosts import BACKBONES, HOSTS, build_batch, build_model, fill_pools, host_config, training_step
from memory import MIB, add_apart_option, measure_apart, measured_apart, rise_on

COLUMNS = ('host', 'omh', 'source', 'batch', 'image_size', 'classes', 'levels')
LEVELS = 3
EXPONENT_LIMIT = 1.1
SMALL = 2
LEAST_MIB = 0.1
STEADY_BATCH = 8
NAMES = dict(stego='STEGO', hp='HP', smooseg='SmooSeg')
WORDS = dict(image_size='image side in pixels', classes='K', levels='levels N')


def settings(args: Any) -> list[dict[str, Any]]:
    """All settings, each once, by varying one factor at a time."""
    base = dict(
        host='stego', omh='on', source='live', batch=args.batch, image_size=args.image_size, classes=CLASSES,
        levels=LEVELS,
    )  # fmt: skip
    found = [{**base, 'host': host, 'batch': batch} for host in args.hosts for batch in args.batch_sizes]
    found += [
        {**base, 'host': host, 'omh': omh, 'source': source}
        for host, omh, source in itertools.product(args.hosts, ('off', 'on'), ('live', 'cached'))
    ]
    found += [{**base, 'image_size': size} for size in args.image_sizes]
    found += [{**base, 'source': 'cached', 'classes': classes} for classes in args.classes]
    found += [{**base, 'source': 'cached', 'levels': levels} for levels in args.levels]
    return [dict(items) for items in dict.fromkeys(tuple(setting.items()) for setting in found)]


def build_step(setting: dict[str, Any], told: dict[str, Any]) -> Callable[[int], Iterator[Callable[[], object]]]:
    """A function from a batch size to steps on fresh batches, whose loading from a cache is part of them."""
    torch.manual_seed(0)
    size, device = setting['image_size'], told['device']
    config = host_config(
        setting['host'], setting['omh'] == 'on', told['backbone'], size, setting['classes'], setting['levels']
    )
    model = build_model(config, device)
    if setting['host'] == 'hp':
        fill_pools(model, size)
    step = training_step(model, config)

    def cached(batch: int) -> Iterator[Callable[[], object]]:
        folder, pairs = Path(told['folder']), setting['host'] == 'stego'
        batches = cached_batches(model, config, folder / 'items', folder / 'caches', told['dtype'], batch, pairs)
        return itertools.repeat(lambda: step(next(batches)))

    def live(batch: int) -> Iterator[Callable[[], object]]:
        data = build_batch(setting['host'], batch, size, setting['classes'], device)
        return itertools.repeat(lambda: step(data))

    return cached if setting['source'] == 'cached' else live


def measure(setting: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds or MiB of one setting, in a process of its own."""
    torch.set_num_threads(told['threads'])
    steps_of = build_step(setting, told)
    if told['memory']:
        next(steps_of(SMALL))()
        run = next(steps_of(setting['batch']))
        return dict(peak_mib=round(rise_on(told['device'], run) / MIB, 1))
    steps = steps_of(setting['batch'])
    # Large steps are steadier, and take longer.
    repeats = max(1, told['repeats'] * STEADY_BATCH // setting['batch'])
    repeats *= 1 if setting['source'] == 'live' else told['cached_steps']
    taken = interleave({'step': lambda: next(steps)}, repeats, device=told['device'])
    return times(taken['step'])


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file and the curves."""
    options = parser(__doc__, repeats=2, device=True)
    options.add_argument('--hosts', choices=HOSTS, nargs='+', default=list(HOSTS))
    options.add_argument('--batch', type=positive, default=4, help='of the base')
    options.add_argument('--batch-sizes', type=positive, nargs='+', default=[4, 8, 16, 32])
    options.add_argument('--image-size', type=positive, default=224, help='of the base, and of what is cached')
    options.add_argument('--image-sizes', type=positive, nargs='+', default=[160, 224, 320])
    options.add_argument('--classes', type=positive, nargs='+', default=[9, 27, 81])
    options.add_argument('--levels', type=positive, nargs='+', default=[1, 2, 3, 4, 5])
    options.add_argument('--dtype', default='float32', help='of the cache')
    options.add_argument('--images', type=positive, default=24, help='in the cache')
    options.add_argument('--cached-steps', type=positive, default=5, help='measurements from the cache per live one')
    options.add_argument('--backbone', choices=BACKBONES, default='vit-s8', help='tiny: to try the script')
    add_apart_option(options)
    args = options.parse_args(argv)
    if measured_apart(args, measure):
        return []
    environment = start(args)
    told = dict(
        threads=environment['threads'], device=args.device, backbone=args.backbone, dtype=args.dtype,
        repeats=args.repeats, cached_steps=args.cached_steps,
    )  # fmt: skip
    found = settings(args)
    with tempfile.TemporaryDirectory() as folder:
        told['folder'] = folder
        fill_caches(found, told, args)
        both = [
            measure_apart(__file__, [(setting, {**told, 'memory': memory}) for setting in found], hold=not memory)
            for memory in (False, True)
        ]
    rows = [{**setting, **taken, **memory} for setting, taken, memory in zip(found, *both)]
    verdicts = judge(rows, args)
    name = f'host_steps_{environment["machine"]}'
    finish('host_steps', 'A training step by host and size', rows, environment, args, verdicts)
    print(f'written: {draw(rows, args, args.out_dir / f"{name}.png")}')
    return verdicts


def fill_caches(found: Sequence[dict[str, Any]], told: dict[str, Any], args: Any) -> None:
    """Make what the hosts need from a cache; they share it but for what HP adds."""
    folder = Path(told['folder'])
    write_items(folder / 'items', args.images, args.image_size)
    for host in dict.fromkeys(setting['host'] for setting in found if setting['source'] == 'cached'):
        torch.manual_seed(0)
        config = host_config(host, backbone=args.backbone, image_size=args.image_size)
        model = build_model(config, args.device)
        build_cache(model, config, folder / 'items', folder / 'caches', args.dtype).complete(progress=False)


def series(rows: Sequence[dict[str, Any]], args: Any, factor: str, **fixed: Any) -> list[dict[str, Any]]:
    """Rows that differ from the base in one factor and what is named alone, in the order of the factor."""
    base = dict(
        host='stego', omh='on', source='live', batch=args.batch, image_size=args.image_size, classes=CLASSES,
        levels=LEVELS,
    )  # fmt: skip
    wanted = {key: value for key, value in {**base, **fixed}.items() if key != factor}
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return sorted(found, key=lambda row: row[factor])


def exponents(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Of peak memory in the batch: over all batches, and from the last but one to the last."""
    sizes, peaks = (np.log([max(row[key], LEAST_MIB) for row in rows]) for key in ('batch', 'peak_mib'))
    return float(np.polyfit(sizes, peaks, 1)[0]), float((peaks[-1] - peaks[-2]) / (sizes[-1] - sizes[-2]))


def judge(rows: Sequence[dict[str, Any]], args: Any) -> list[Verdict]:
    """Growth of the memory of each host with the batch."""
    verdicts = []
    for host in args.hosts:
        found = series(rows, args, 'batch', host=host)
        if len(found) < 2:
            continue
        fitted, last = exponents(found)
        verdicts.append(
            Verdict(
                f"peak memory of {host}'s step grows no faster than linearly in the batch",
                f'with its power of {fitted:.2f} over {found[0]["batch"]} to {found[-1]["batch"]} images, {last:.2f} '
                f'at the end; {found[-1]["peak_mib"]:.0f} MiB at {found[-1]["batch"]}',
                max(fitted, last) <= EXPONENT_LIMIT,
            )
        )
    return verdicts


def draw(rows: Sequence[dict[str, Any]], args: Any, path: Path) -> Path:
    """Draw the curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout='constrained')
    axes = figure.subplots(2, 3)
    for axis, key, label in ((axes[0, 0], 'wall_ms', 'seconds'), (axes[0, 1], 'peak_mib', 'MiB')):
        for host in args.hosts:
            found = series(rows, args, 'batch', host=host)
            values = [row[key] / 1e3 if key == 'wall_ms' else max(row[key], LEAST_MIB) for row in found]
            axis.loglog([row['batch'] for row in found], values, marker='o', label=NAMES[host])
        ticks = sorted(set(args.batch_sizes))
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter('{x:g}')
        axis.set(xlabel='batch', ylabel=label, title='Step time, live' if key == 'wall_ms' else 'Peak memory, live')
        axis.legend()
    plain = (
        (axes[0, 2], 'image_size', dict(), 'STEGO + OMH, live'),
        (axes[1, 0], 'classes', dict(source='cached'), 'STEGO + OMH, cached'),
        (axes[1, 1], 'levels', dict(source='cached'), 'STEGO + OMH, cached'),
    )
    for axis, factor, fixed, title in plain:
        found = series(rows, args, factor, **fixed)
        values = [row[factor] for row in found]
        axis.plot(values, [row['wall_ms'] for row in found], marker='o', color='tab:blue')
        axis.set_xticks(values)
        axis.set(xlabel=WORDS[factor], ylabel='milliseconds', title=title, ylim=(0, None))
    bars(axes[1, 2], rows, args)
    figure.savefig(path, dpi=110)
    return path


def bars(axis: Any, rows: Sequence[dict[str, Any]], args: Any) -> None:
    """Step time of each host at the base, by source, with and without OMH."""
    kinds = list(itertools.product(('live', 'cached'), ('off', 'on')))
    width = 0.8 / len(kinds)
    for number, (source, omh) in enumerate(kinds):
        heights = [
            next(row['wall_ms'] for row in series(rows, args, 'batch', host=host, source=source, omh=omh)
                 if row['batch'] == args.batch)
            for host in args.hosts
        ]  # fmt: skip
        places = np.arange(len(args.hosts)) + (number - (len(kinds) - 1) / 2) * width
        label = f'{source}{" + OMH" if omh == "on" else ""}'
        axis.bar(places, heights, width, label=label, color=f'tab:{"blue" if source == "live" else "orange"}',
                 alpha=1.0 if omh == 'on' else 0.6)  # fmt: skip
    axis.set_xticks(range(len(args.hosts)), [NAMES[host] for host in args.hosts])
    axis.set(ylabel='milliseconds', title=f'Step time, batch {args.batch}')
    axis.set_yscale('log')
    # Room for the legend above the bars.
    axis.set_ylim(top=axis.get_ylim()[1] * 8)
    axis.legend(ncols=2)


if __name__ == '__main__':
    main()
