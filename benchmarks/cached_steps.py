"""Training steps from the feature cache, and what takes their time.

    python benchmarks/cached_steps.py views     # HP: live, a fresh jittered view from the cache, cached views
    python benchmarks/cached_steps.py omh       # what OMH adds to STEGO's and SmooSeg's step
    python benchmarks/cached_steps.py probe     # the linear probe's part of STEGO's step on photos
    python benchmarks/cached_steps.py contrast  # HP live: how step and contrast grow with the batch

The models are those of the configs for COCO-Stuff with ViT-S/8, or of the configs for a folder with MobileNetV2, with
random weights. A step is the ``train_step`` of mmengine's loop with the config's optimiser. From the cache it begins
with reading the features, which lie in the system's cache; live it begins with decoded images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from cached import CLASSES, cached_batches, write_items
from common import REPOSITORY, Benchmark, Prepared, Question, Rows, Verdict, interleave
from hosts import BACKBONES, build_batch, build_model, fill_pools, host_config, total, training_step
from mmengine.config import Config
from torch import Tensor, nn

from omh_mmseg.models.decode_heads import LinearProbe
from omh_mmseg.structures.labels import IGNORED_LABEL, stacked_labels
from omh_mmseg.transport import matching

VIEWS_LIMIT, OMH_LIMIT, PROBE_LIMIT, GROWTH_LIMIT = 0.15, 0.10, 0.20, 1.3
PRODUCT_TYPES = ('', 'bfloat16')
STEPS = 5
WITHOUT, WITH, FOLDED = 'without OMH', 'with OMH', 'with OMH, clusters folded one after another'
HOST, WHOLE = 'losses without the probe', 'losses with the probe'
PLAIN, EXACT, SOME = 'probe, before', 'probe, by rows', 'probe, some rows'
LIVE, FRESH, KEPT = 'live', 'cached, a fresh view', 'cached, cached views'


def views(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """HP's step live, from the cache with the jittered view of each step, and with a few cached ones, in turn."""
    steps: dict[str, Prepared] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_items(folder / 'items', args.images, args.image_size)
        torch.manual_seed(0)
        config = host_config('hp', backbone=args.backbone, image_size=args.image_size)
        if not args.probe:
            config.model.linear_probe = None
        model = build_model(config, args.device)
        fill_pools(model, args.image_size)
        step = training_step(model, config)
        data = build_batch('hp', args.batch, args.image_size, CLASSES, args.device)
        steps[LIVE] = lambda: partial(step, data)
        for name, count in ((FRESH, 0), (KEPT, args.views)):
            batches = cached_batches(
                model, config, folder / 'items', folder / 'caches', 'float32', args.batch, False, count
            )
            steps[name] = lambda batches=batches: lambda: step(next(batches))
        taken = interleave(steps, args.repeats, progress='steps of HP', device=args.device)
    live = taken[LIVE]
    rows = [
        dict(
            batch=args.batch,
            step=name,
            views=args.views if name == KEPT else '',
            linear_probe=args.probe,
            **sample.times(),
            wall_ratio=round(sample.wall_ms / live.wall_ms, 4),
            cpu_ratio=round(sample.cpu_ms / live.cpu_ms, 4),
        )
        for name, sample in taken.items()
    ]
    ratio = rows[-1]['cpu_ratio']
    return rows, [
        Verdict(
            f'HP from the cache with {args.views} cached views: at most {VIEWS_LIMIT:g} of the live processor time',
            f'{ratio:.3f}; {rows[1]["cpu_ratio"]:.3f} with a fresh view',
            ratio <= VIEWS_LIMIT,
        )
    ]


def omh(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Whole steps without and with OMH, in turn in one model, and forward and backward of OMH alone."""
    rows: Rows = []
    verdicts = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_items(folder / 'items', args.images, args.image_size)
        for host in args.hosts:
            torch.manual_seed(0)
            config = host_config(host, True, args.backbone, args.image_size)
            # The norms logged every 50th step are watched, not needed.
            config.model.gradient_log_interval = 0
            model = build_model(config, args.device)
            step, head = training_step(model, config), model.omh_head
            batches = cached_batches(
                model, config, folder / 'items', folder / 'caches', 'float32', args.batch, host == 'stego'
            )

            def run(
                name: str, model: Any = model, head: Any = head, step: Any = step, batches: Any = batches
            ) -> None:
                model.omh_head = None if name == WITHOUT else head
                # What is done on a GPU, whose values nobody looks at, was done everywhere before.
                look = mock.patch.object(matching, 'may_look_at', lambda values: False)
                with look if name == FOLDED else nullcontext():
                    for _ in range(STEPS):
                        step(next(batches))

            steps: dict[str, Prepared] = {
                name: lambda name=name, run=run: partial(run, name) for name in (WITHOUT, WITH, FOLDED)
            }
            taken = interleave(steps, args.repeats, progress=host, device=args.device)
            samples = {name: sample.per_step(STEPS) for name, sample in taken.items()}
            more = {name: sample.cpu_ms / samples[WITHOUT].cpu_ms - 1 for name, sample in samples.items()}
            added = more[WITH]
            rows += [
                dict(host=host, batch=args.batch, step=name, **sample.times(), added_percent=round(100 * more[name], 2))
                for name, sample in samples.items()
            ]
            limit = f'OMH adds at most {100 * OMH_LIMIT:.0f} % to a step of {host} from the cache, batch {args.batch}'
            verdicts.append(Verdict(limit, f'{100 * added:+.1f} % of the processor time', added <= OMH_LIMIT))
    return rows, verdicts


def probe(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Forward and backward of the probe's loss as before and now, and on a share of the rows, beside a whole step.

    The photos are those of CamVid's size in the configs for a folder: 240 x 320 pixels, 11 classes, a grid of 15 x 20.
    """
    torch.manual_seed(0)
    height, width, classes = args.height, args.width, args.classes
    config = Config.fromfile(REPOSITORY / 'configs' / 'stego_mobilenet-v2_folder.py')
    config.model.backbone.checkpoint = None
    config.model.num_classes = classes
    model = build_model(config, args.device)
    batch = build_batch('stego', args.batch, (height, width), classes, args.device)
    ready = model.data_preprocessor(batch, training=True)
    with torch.no_grad():
        views = {name: model.freeze(images) for name, images in ready['inputs'].items()}
        code = model.decode_head(views['anchor'].features)
    labels = stacked_labels(ready['data_samples'], code)
    few = LinearProbe(code.shape[1], classes, row_share=args.row_share).to(args.device)
    linear = model.linear_probe

    def host(with_probe: bool) -> None:
        model.linear_probe = linear if with_probe else None
        losses = model.loss(views, ready['data_samples'])
        total(losses).backward()
        model.zero_grad()

    def of(loss: Callable[[], Tensor]) -> Prepared:
        return lambda: lambda: loss().backward()

    alternatives: dict[str, Prepared] = {
        WHOLE: lambda: partial(host, True),
        HOST: lambda: partial(host, False),
        PLAIN: of(lambda: plain_loss(linear, code, labels)),
        EXACT: of(lambda: linear.loss(code, labels)['loss_linear_probe']),
        SOME: of(lambda: few.loss(code, labels)['loss_linear_probe']),
    }
    taken = interleave(alternatives, args.repeats, progress='linear probe', device=args.device)
    base = taken[HOST].cpu_ms
    rows = [
        dict(
            batch=args.batch, height=height, width=width, classes=classes, what=name,
            row_share=args.row_share if name == SOME else 1.0, **sample.times(),
            share_percent='' if name in (HOST, WHOLE) else round(100 * sample.cpu_ms / (base + sample.cpu_ms), 2),
        )
        for name, sample in taken.items()
    ]  # fmt: skip
    shares = {row['what']: float(row['share_percent']) for row in rows if row['share_percent'] != ''}
    return rows, [
        Verdict(
            f'{name}: at most {100 * PROBE_LIMIT:.0f} % of a cached step on photos',
            f'{shares[name]:.1f} % of the processor time; {shares[PLAIN]:.1f} % before',
            shares[name] <= 100 * PROBE_LIMIT,
        )
        for name in (EXACT, SOME)
    ]


def plain_loss(probe: nn.Module, code: Tensor, labels: Tensor) -> Tensor:
    """The probe's loss by torch's own functions: all logits are upsampled, channels last."""
    logits = probe(code).contiguous(memory_format=torch.channels_last)
    logits = F.interpolate(logits, size=labels.shape[-2:], mode='bilinear', align_corners=False)
    return F.cross_entropy(logits.permute(0, 2, 3, 1).flatten(0, 2), labels.flatten(), ignore_index=IGNORED_LABEL)


def contrast(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """HP's live step and its contrast alone by batch, with exact products and with products in half precision."""
    rows: Rows = []
    for batch in args.batch_sizes:
        torch.manual_seed(0)
        config = host_config('hp', backbone=args.backbone, image_size=args.image_size)
        model = build_model(config, args.device)
        fill_pools(model, args.image_size)
        step, data = training_step(model, config), build_batch('hp', batch, args.image_size, CLASSES, args.device)
        loss, seen = model.hidden_positive_loss, []
        handle = loss.register_forward_pre_hook(lambda _, __, given, seen=seen: seen.append(given), with_kwargs=True)
        step(data)
        handle.remove()
        fixed = {name: one.detach() if isinstance(one, Tensor) else one for name, one in seen[0].items()}

        def run(work: Callable[[], object], dtype: str, loss: nn.Module = loss) -> None:
            loss.products = getattr(torch, dtype) if dtype else None
            work()

        def alone(loss: nn.Module = loss, fixed: dict[str, Any] = fixed) -> None:
            leaves = {name: fixed[name].clone().requires_grad_() for name in ('projected', 'mixed')}
            loss(**{**fixed, **leaves})['loss_contrast'].backward()

        works = {'step': partial(step, data), 'contrast': alone}
        pairs = [(what, dtype) for dtype in PRODUCT_TYPES for what in works]
        steps: dict[str, Prepared] = {
            f'{what} {dtype}': lambda what=what, dtype=dtype, works=works, run=run: partial(run, works[what], dtype)
            for what, dtype in pairs
        }
        taken = interleave(steps, args.repeats, warmup=0, progress=f'batch {batch}', device=args.device)
        for what, dtype in pairs:
            share = taken[f'{what} {dtype}'].cpu_ms / taken[f'step {dtype}'].cpu_ms
            times = taken[f'{what} {dtype}'].times()
            rows.append(dict(batch=batch, what=what, products=dtype or 'float32', **times, share=round(share, 3)))
    first, last = args.batch_sizes[0], args.batch_sizes[-1]
    took = {(row['batch'], row['what'], row['products']): row['cpu_ms'] for row in rows}
    verdicts = []
    for dtype in PRODUCT_TYPES:
        name = dtype or 'float32'
        growth = took[last, 'step', name] / took[first, 'step', name] / (last / first)
        verdicts.append(
            Verdict(
                f"HP's live step grows at most {GROWTH_LIMIT:g} times linearly from batch {first} to {last}, {name}",
                f'{growth:.2f} times',
                growth <= GROWTH_LIMIT,
            )
        )
    return rows, verdicts


main = Benchmark(
    __file__,
    __doc__,
    dict(
        views=Question(
            views,
            "HP's step and its jittered view",
            repeats=5,
            options=dict(batch=4, image_size=224, backbone='vit-s8', images=16, views=4, probe=True),
            quick=dict(repeats=1, images=8, views=2),
            choices=dict(backbone=BACKBONES),
            device='cpu',
        ),
        omh=Question(
            omh,
            "OMH's part of a step from the cache",
            repeats=9,
            options=dict(hosts=['stego', 'smooseg'], batch=4, image_size=224, backbone='vit-s8', images=16),
            quick=dict(repeats=3, images=8),
            choices=dict(backbone=BACKBONES, hosts=['stego', 'smooseg']),
            device='cpu',
        ),
        probe=Question(
            probe,
            "The linear probe's part of a step from the cache",
            repeats=15,
            options=dict(batch=8, height=240, width=320, classes=11, row_share=0.1),
            quick=dict(repeats=5),
            device='cpu',
        ),
        contrast=Question(
            contrast,
            "HP's live step and its contrast by batch",
            repeats=2,
            options=dict(batch_sizes=[4, 32], image_size=224, backbone='vit-s8'),
            quick=dict(repeats=1, batch_sizes=[2, 8]),
            choices=dict(backbone=BACKBONES),
            device='cpu',
        ),
    ),
)

if __name__ == '__main__':
    main()
