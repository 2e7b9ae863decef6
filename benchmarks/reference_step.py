"""STEGO's training step beside a straight-line one in the references' manner: live, with a bfloat16 backbone, cached.

    python benchmarks/reference_step.py

The references' manner is benchmarks/straight_line.py: explicit attention in all blocks, image and neighbour through the
backbone one after the other in float32, losses as 5-D tensors, three optimisers. Ours is the whole ``train_step`` of
mmengine's loop with the config configs/stego_vit-s8_coco.py, or its OMH twin past ``start_iteration``: normalisation of
uint8 images, forward, backward, the config's optimiser. Live steps begin with decoded images on both sides. A step
from the cache begins with the data loader: reading the pair's features from disk and stacking them is part of it; the
files are as warm as they get in a training, that is, in the system's cache if they fit there. Weights are random and
the same on both sides, images are random, steps are taken in turn in one process.

Before anything is timed, one step of both sides with the same random draws is compared: losses, and gradients of the
head.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cached import CACHED_DTYPES, cached_batches, write_items
from common import Samples, Verdict, finish, interleave, parser, positive, start, times
from hosts import BACKBONES, build_batch, build_model, host_config, training_step
from straight_line import StraightStep
from torch import nn

LIMITS = {'float32': 0.65, 'bfloat16': 0.42, 'cached float32': 0.05, 'cached float16': 0.05}
OMH_LIMIT = 0.10
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
REFERENCE = "references' manner"
LIVE = ('float32', 'bfloat16')
WITH_OMH = ', OMH'
CACHED_STEPS = 5


def difference(backbone: str, image_size: int, batch: int, device: str) -> tuple[float, float]:
    """Largest deviation of a loss, and of a gradient of the head relative to the largest one, of one equal step."""
    config = host_config(backbone=backbone, image_size=image_size)
    config.model.decode_head.dropout_ratio = 0.0
    torch.manual_seed(0)
    model = build_model(config, device)
    reference = StraightStep(model)
    data = build_batch('stego', batch, image_size, model.num_classes, device)
    ready = model.data_preprocessor(data, training=True)
    pairs, labels = straightened(ready)
    # Convolutions of two batch sizes would be rounded differently in TensorFloat-32.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        torch.manual_seed(1)
        theirs = reference.losses(*pairs, labels)
        torch.manual_seed(1)
        ours = model.loss(**ready)
        for named in (theirs, ours):
            torch.stack([value for name, value in named.items() if 'loss' in name]).sum().backward()
    losses = max(abs(ours[name].item() - value.item()) for name, value in theirs.items())
    gradients = [
        (our.grad - their.grad).abs().max() / their.grad.abs().max()
        for our, their in zip(model.decode_head.parameters(), head_of(reference))
    ]
    return losses, float(torch.stack(gradients).max())


def head_of(reference: StraightStep) -> list[nn.Parameter]:
    """Parameters of the head in the order of `ProjectionHead`."""
    return [*reference.linear.parameters(), *reference.nonlinear.parameters()]


def straightened(ready: dict[str, Any]) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Anchors, neighbours and labels of a normalised batch, as the straight-line step takes them."""
    labels = torch.cat([sample.gt_sem_seg.data for sample in ready['data_samples']])
    return (ready['inputs']['anchor'], ready['inputs']['neighbour']), labels


def alternatives(
    backbone: str, image_size: int, batch: int, device: str, folder: Path | None
) -> dict[str, Callable[[], Callable[[], object]]]:
    """All steps of a batch size by name, over the same weights; without a folder none from the cache."""
    base = build_model(host_config(backbone=backbone, image_size=image_size), device)
    data = build_batch('stego', batch, image_size, base.num_classes, device)
    reference = StraightStep(base)
    pairs, labels = straightened(base.data_preprocessor(data, training=True))
    result: dict[str, Callable[[], Callable[[], object]]] = {
        REFERENCE: lambda: lambda: reference.step(*pairs, labels)
    }

    def add(name: str, run: Callable[[], object]) -> None:
        result[name] = lambda: run

    def model_of(**options: Any) -> tuple[Any, Any, Callable[[bool, Any], object]]:
        config = host_config('stego', True, backbone, image_size, **options)
        model = build_model(config, device)
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
            add(precision + omh * WITH_OMH, lambda step=step, omh=omh: step(omh, data))
    for dtype in CACHED_DTYPES if folder is not None else ():
        config, model, step = model_of()
        batches = cached_batches(model, config, folder / 'items', folder / 'caches', dtype, batch, pairs=True)
        for omh in (False, True):
            name = f'cached {dtype}{omh * WITH_OMH}'
            add(name, lambda step=step, omh=omh, batches=batches: several(partial(step, omh), batches))
    return result


def several(step: Callable[[Any], object], batches: Any) -> None:
    """Some steps in a row: one alone, after a live step, would find all caches of the processor cold."""
    for _ in range(CACHED_STEPS):
        step(next(batches))


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=5, device=True)
    options.add_argument('--batch-sizes', type=positive, nargs='+', default=[4, 16])
    options.add_argument('--image-size', type=positive, default=224)
    options.add_argument('--backbone', choices=BACKBONES, default='vit-s8', help='tiny: to try the script')
    options.add_argument('--images', type=positive, default=48, help='items in the cache')
    options.add_argument('--no-cache', action='store_true', help='leave the steps from the cache out')
    args = options.parse_args(argv)
    environment = start(args)
    device = args.device
    losses, gradients = difference(args.backbone, args.image_size, 2, device)
    verdicts = [
        Verdict(
            f"ours and the references' manner compute the same step: losses to {LOSS_TOLERANCE:g}, gradients of the "
            f'head to {GRADIENT_TOLERANCE:g}',
            f'losses within {losses:.1g}, gradients within {gradients:.1g} of the largest',
            losses <= LOSS_TOLERANCE and gradients <= GRADIENT_TOLERANCE,
        )
    ]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = None if args.no_cache else Path(temporary)
        if folder is not None:
            write_items(folder / 'items', args.images, args.image_size)
        for batch in args.batch_sizes:
            torch.manual_seed(0)
            steps = alternatives(args.backbone, args.image_size, batch, device, folder)
            taken = interleave(steps, args.repeats, progress=f'batch {batch}', device=device)
            rows += [row(batch, name, sample, taken[REFERENCE]) for name, sample in per_step(taken).items()]
    verdicts += judge(rows)
    title = "A training step of STEGO and the references' manner"
    return finish('reference_step', title, rows, environment, args, verdicts)


def per_step(taken: dict[str, Samples]) -> dict[str, Samples]:
    """Measurements of several steps, divided by their number."""
    return {
        name: Samples([wall / CACHED_STEPS for wall in sample.wall], [cpu / CACHED_STEPS for cpu in sample.cpu])
        if name.startswith('cached')
        else sample
        for name, sample in taken.items()
    }


def row(batch: int, name: str, sample: Samples, reference: Samples) -> dict[str, Any]:
    """A row of the table."""
    return dict(
        batch=batch,
        step=name.removesuffix(WITH_OMH),
        omh='on' if name.endswith(WITH_OMH) else 'off',
        **times(sample),
        wall_ratio=round(sample.wall_ms / reference.wall_ms, 4),
        cpu_ratio=round(sample.cpu_ms / reference.cpu_ms, 4),
    )


def omh_overhead(rows: Sequence[dict[str, Any]], batch: Any, step: str) -> float:
    """How much longer a step takes with OMH than without, as a share of that without."""
    took = {item['omh']: float(item['wall_ms']) for item in rows if (item['batch'], item['step']) == (batch, step)}
    return took['on'] / took['off'] - 1


def judge(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """The limits of each kind of step and batch, and of OMH in the live ones."""
    verdicts = []
    for item in rows:
        if item['omh'] == 'off' and item['step'] in LIMITS:
            limit = LIMITS[item['step']]
            verdicts.append(
                Verdict(
                    f"STEGO's step, {item['step']}, batch {item['batch']}: at most {limit:g} of the references' manner",
                    f'{item["wall_ratio"]:.3f} ({item["wall_ms"] / 1e3:.2f} s)',
                    item['wall_ratio'] <= limit,
                )
            )
            if item['step'] in LIVE:
                overhead = omh_overhead(rows, item['batch'], item['step'])
                verdicts.append(
                    Verdict(
                        f'OMH adds at most {100 * OMH_LIMIT:.0f} % to it',
                        f'{100 * overhead:+.1f} %',
                        overhead <= OMH_LIMIT,
                    )
                )
    return verdicts


if __name__ == '__main__':
    main()
