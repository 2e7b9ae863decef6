"""Training images per second on a GPU, beside the bare bfloat16 forward of the frozen backbone, and OMH's share.

    python benchmarks/gpu_rate.py

The bare forward is that of the wrapped vision transformer alone, its weights converted to bfloat16, in inference mode,
on as many images as a step has: the limit for a step that runs the backbone. Steps are whole ``train_step`` calls of
the COCO-Stuff configs with a bfloat16 backbone, on images of the device's memory (``device``) or of pinned memory of
the host (``pinned``), as a loader hands them over. A pair of STEGO is two images. Some steps in a row are measured
between two synchronisations, so that one that waits for the device within the step shows. Decoding is left out; see
benchmarks/reading.py.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from common import MIB, Benchmark, Prepared, Question, Rows, Verdict, interleave
from hosts import (
    BACKBONES,
    HOSTS,
    WITH_OMH,
    build_batch,
    build_model,
    fill_pools,
    host_config,
    on_off,
    training_step,
)
from torch import Tensor, nn

RATE_LIMIT = 0.8
OMH_LIMIT = 0.05
SOURCES = ('device', 'pinned')
VIEWS = dict(stego=2, hp=2, smooseg=1)


def gpu(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """The rates of each host and the limits of its step."""
    rows = [row for host in args.hosts for row in rates(host, args)]
    verdicts = []
    for host in args.hosts:
        off, on = (
            next(row for row in rows if (row['host'], row['step'], row['omh']) == (host, 'pinned', omh))
            for omh in ('off', 'on')
        )
        reached, overhead = off['share_of_bare'], 1 - off['wall_ms'] / on['wall_ms']
        limit = f'training with {host} runs at {100 * RATE_LIMIT:.0f} % or more of the bare bfloat16 forward'
        verdicts.append(Verdict(limit, f'{100 * reached:.1f} %', reached >= RATE_LIMIT))
        limit = f'OMH takes under {100 * OMH_LIMIT:.0f} % of a step of {host}'
        verdicts.append(Verdict(limit, f'{100 * overhead:.1f} %', overhead < OMH_LIMIT))
    return rows, verdicts


def rates(host: str, args: argparse.Namespace) -> Rows:
    """Rows of one host: the bare forward, and the steps in turn."""
    torch.manual_seed(0)
    count = VIEWS[host] * args.batch_size
    runs: dict[str, Callable[[], object]] = {}
    peaks: dict[str, float | str] = {}
    for omh in (False, True):
        config = host_config(host, omh, args.backbone, args.image_size, precision='bfloat16')
        model = build_model(config, args.device)
        if host == 'hp':
            fill_pools(model, args.image_size)
        if not runs:
            runs['bare forward'] = bare_forward(model, count, args)
        step = training_step(model, config)
        for source in SOURCES:
            data = build_batch(host, args.batch_size, args.image_size, model.num_classes, args.device)
            name = source + omh * WITH_OMH
            runs[name] = partial(step, pinned(data) if source == 'pinned' else data)
            peaks[name] = step_peak(runs[name], args.device)

    def in_a_row(run: Callable[[], object]) -> Prepared:
        def steps() -> None:
            for _ in range(args.steps):
                run()

        return lambda: steps

    prepared = {name: in_a_row(run) for name, run in runs.items()}
    taken = interleave(prepared, args.repeats, warmup=2, progress=host, device=args.device)
    bare = taken['bare forward'].wall_ms
    return [
        dict(
            host=host,
            batch=args.batch_size,
            images=count,
            **on_off(name),
            wall_ms=round(sample.wall_ms / args.steps, 3),
            images_per_s=round(1e3 * count * args.steps / sample.wall_ms, 1),
            share_of_bare=round(bare / sample.wall_ms, 4),
            peak_mib=peaks.get(name, ''),
        )
        for name, sample in taken.items()
    ]


def bare_forward(model: nn.Module, count: int, args: argparse.Namespace) -> Callable[[], object]:
    """The wrapped backbone alone in bfloat16."""
    network = copy.deepcopy(model.backbone.backbone).to(torch.bfloat16)
    images = torch.randn(count, 3, args.image_size, args.image_size, device=args.device, dtype=torch.bfloat16)
    return torch.inference_mode()(lambda: network(images))


def pinned(data: dict[str, Any]) -> dict[str, Any]:
    """A batch whose images and labels lie in pinned memory of the host, where there is a GPU."""

    def move(images: Sequence[Tensor]) -> list[Tensor]:
        return [image.cpu().pin_memory() if torch.cuda.is_available() else image.cpu() for image in images]

    inputs = data['inputs']
    moved = {name: move(view) for name, view in inputs.items()} if isinstance(inputs, dict) else move(inputs)
    return dict(inputs=moved, data_samples=[sample.cpu() for sample in data['data_samples']])


def step_peak(run: Callable[[], object], device: str) -> float | str:
    """Peak of the device's allocated memory in a step, weights included; empty on a processor."""
    if torch.device(device).type != 'cuda':
        return ''
    run()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return round(torch.cuda.max_memory_allocated(device) / MIB, 1)


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            gpu,
            'Images per second on a GPU',
            repeats=5,
            options=dict(batch_size=32, image_size=224, steps=10, hosts=list(HOSTS), backbone='vit-s8'),
            quick=dict(repeats=2),
            choices=dict(hosts=HOSTS, backbone=BACKBONES),
            device='cuda',
        )
    },
)  # fmt: skip

if __name__ == '__main__':
    main()
