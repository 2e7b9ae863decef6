"""Training images per second on a GPU, beside the bare bfloat16 forward of the frozen backbone, and OMH's share.

    python benchmarks/gpu_rate.py

The bare forward is that of the wrapped vision transformer alone, its weights converted to bfloat16, in inference mode,
on as many images as a step has: the limit for a step that runs the backbone. Steps are whole ``train_step`` calls of
the COCO-Stuff configs with a bfloat16 backbone, on images of the device's memory (``device``) or of pinned memory of
the host (``pinned``), as a loader hands them over. A pair of STEGO is two images. Some steps in a row are measured
between two synchronisations, so that one that waits for the device within the step shows. Decoding is left out; see
benchmarks/loader.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import Verdict, finish, interleave, parser, positive, start
from hosts import BACKBONES, HOSTS, build_batch, build_model, fill_pools, host_config, training_step
from memory import MIB
from torch import Tensor, nn

RATE_LIMIT = 0.8
OMH_LIMIT = 0.05
SOURCES = ('device', 'pinned')
VIEWS = dict(stego=2, hp=2, smooseg=1)


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=5, device=True)
    options.set_defaults(device='cuda')
    options.add_argument('--batch-size', type=positive, default=32)
    options.add_argument('--image-size', type=positive, default=224)
    options.add_argument('--steps', type=positive, default=10, help='steps in a row, one measurement')
    options.add_argument('--hosts', choices=HOSTS, nargs='+', default=list(HOSTS))
    options.add_argument('--backbone', choices=BACKBONES, default='vit-s8', help='tiny: to try the script')
    args = options.parse_args(argv)
    if torch.device(args.device).type == 'cuda' and not torch.cuda.is_available():
        raise SystemExit(f'gpu_rate.py needs a GPU, and torch {torch.__version__} sees none.')
    environment = start(args)
    rows: list[dict[str, Any]] = []
    for host in args.hosts:
        rows += measure(host, args)
    title = f'Images per second at batch {args.batch_size}'
    return finish('gpu_rate', title, rows, environment, args, judge(rows))


def measure(host: str, args: Any) -> list[dict[str, Any]]:
    """Rows of one host: the bare forward, and the steps in turn."""
    torch.manual_seed(0)
    count = VIEWS[host] * args.batch_size
    alternatives: dict[str, Callable[[], object]] = {}
    peaks: dict[str, float | str] = {}
    for omh in (False, True):
        config = host_config(host, omh, args.backbone, args.image_size, precision='bfloat16')
        model = build_model(config, args.device)
        if host == 'hp':
            fill_pools(model, args.image_size)
        if not alternatives:
            alternatives['bare forward'] = bare_forward(model, count, args)
        step = training_step(model, config)
        for source in SOURCES:
            data = build_batch(host, args.batch_size, args.image_size, model.num_classes, args.device)
            if source == 'pinned':
                data = pinned(data)
            name = f'{source}{", OMH" if omh else ""}'
            alternatives[name] = lambda step=step, data=data: step(data)
            peaks[name] = peak_mib(alternatives[name], args.device)

    def in_a_row(run: Callable[[], object]) -> Callable[[], Callable[[], None]]:
        def several() -> None:
            for _ in range(args.steps):
                run()

        return lambda: several

    named = {name: in_a_row(run) for name, run in alternatives.items()}
    taken = interleave(named, args.repeats, warmup=2, progress=host, device=args.device)
    bare = taken['bare forward'].wall_ms
    return [
        dict(
            host=host,
            batch=args.batch_size,
            images=count,
            step=name.removesuffix(', OMH'),
            omh='on' if name.endswith(', OMH') else 'off',
            wall_ms=round(sample.wall_ms / args.steps, 3),
            images_per_s=round(1e3 * count * args.steps / sample.wall_ms, 1),
            share_of_bare=round(bare / sample.wall_ms, 4),
            peak_mib=peaks.get(name, ''),
        )
        for name, sample in taken.items()
    ]


def bare_forward(model: nn.Module, count: int, args: Any) -> Callable[[], object]:
    """The wrapped backbone alone in bfloat16."""
    network = copy.deepcopy(model.backbone.backbone).to(torch.bfloat16)
    images = torch.randn(count, 3, args.image_size, args.image_size, device=args.device, dtype=torch.bfloat16)

    @torch.inference_mode()
    def run() -> object:
        return network(images)

    return run


def pinned(data: dict[str, Any]) -> dict[str, Any]:
    """A batch whose images and labels lie in pinned memory of the host, where there is a GPU."""

    def move(value: Tensor) -> Tensor:
        value = value.cpu()
        return value.pin_memory() if torch.cuda.is_available() else value

    inputs = data['inputs']
    views = inputs if isinstance(inputs, dict) else dict(only=inputs)
    moved = {name: [move(image) for image in view] for name, view in views.items()}
    samples = [sample.cpu() for sample in data['data_samples']]
    return dict(inputs=moved if isinstance(inputs, dict) else moved['only'], data_samples=samples)


def peak_mib(run: Callable[[], object], device: str) -> float | str:
    """Peak of the device's allocated memory in a step, weights included; empty on a processor."""
    if torch.device(device).type != 'cuda':
        return ''
    run()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return round(torch.cuda.max_memory_allocated(device) / MIB, 1)


def judge(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """The limits of STEGO's step."""
    verdicts = []
    for host in dict.fromkeys(row['host'] for row in rows):
        found = {(row['step'], row['omh']): row for row in rows if row['host'] == host}
        share = found['pinned', 'off']['share_of_bare']
        overhead = 1 - found['pinned', 'off']['wall_ms'] / found['pinned', 'on']['wall_ms']
        verdicts += [
            Verdict(
                f'training with {host} runs at {100 * RATE_LIMIT:.0f} % or more of the bare bfloat16 forward',
                f'{100 * share:.1f} %',
                share >= RATE_LIMIT,
            ),
            Verdict(
                f'OMH takes under {100 * OMH_LIMIT:.0f} % of a step of {host}',
                f'{100 * overhead:.1f} %',
                overhead < OMH_LIMIT,
            ),
        ]
    return verdicts


if __name__ == '__main__':
    main()
