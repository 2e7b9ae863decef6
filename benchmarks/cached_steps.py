"""Training steps from the feature cache, and what takes their time.

    python benchmarks/cached_steps.py views     # HP: live, a fresh jittered view from the cache, cached views

The models are those of the configs for COCO-Stuff with ViT-S/8, or of the configs for a folder with MobileNetV2, with
random weights. A step is the ``train_step`` of mmengine's loop with the config's optimiser. From the cache it begins
with reading the features, which lie in the system's cache; live it begins with decoded images.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch
from cached import CLASSES, cached_batches, write_items
from common import Benchmark, Prepared, Question, Rows, Verdict, interleave
from hosts import BACKBONES, build_batch, build_model, fill_pools, host_config, training_step

VIEWS_LIMIT = 0.15
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
    ),
)

if __name__ == '__main__':
    main()
