"""What the features of the published data sets cost: processor time to compute, disk to keep, and when that pays.

    python benchmarks/cache_cost.py
    python benchmarks/cache_cost.py --backbones vit-b8 --precisions bfloat16

The forward of the frozen backbones of the configs, with random weights, is measured on random images of 224 pixels, all
precisions in turn; what a data set takes follows from its number of training items. A cache pays within one training
where that makes more forward passes than there are items.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from common import REPOSITORY, Benchmark, Prepared, Question, Rows, Verdict, interleave
from hosts import build_model
from mmengine.config import Config

from omh_mmseg.utils.precision import wide_dtype

ITEMS = {
    'COCO-Stuff-27': ('coco', 5 * 97702),
    'Cityscapes-27': ('cityscapes', 5 * 2975),
    'Potsdam-3': ('potsdam', 4545),
}
"""Config and items of each training set: five crops of an image where the protocol has them (docs/data.md)."""
BACKBONES = ('vit-s8', 'vit-b8')
PRECISIONS = ('float32', 'bfloat16')
GIB = 2**30
LABEL_BYTES = 1


def cache_cost(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Rates of the forward pass by backbone and precision, and what follows for each data set."""
    rows: Rows = []
    side = args.image_size
    for name in args.backbones:
        files = {data: f'configs/stego_{name}_{key}.py' for data, (key, _) in ITEMS.items()}
        configs = {data: Config.fromfile(REPOSITORY / file) for data, file in files.items()}
        steps: dict[str, Prepared] = {}
        images = torch.randn(args.batch, 3, side, side)
        for precision in args.precisions:
            config = next(iter(configs.values()))
            config.model.backbone.checkpoint = None
            config.model.backbone.precision = precision
            backbone = build_model(config).backbone
            steps[precision] = lambda backbone=backbone, images=images: partial(backbone, images)
        taken = interleave(steps, args.repeats, progress=name)
        with torch.no_grad():
            features = backbone(images)
        numbers = features[0].numel()
        for precision, sample in taken.items():
            per_item = sample.cpu_ms / args.batch
            for data, (_, items) in ITEMS.items():
                config = configs[data]
                passes = 2 * config.train_dataloader.batch_size * config.train_cfg.max_iters
                full, half = (
                    items * (numbers * size + LABEL_BYTES * side**2) / GIB
                    for size in (wide_dtype(features).itemsize, torch.float16.itemsize)
                )
                rows.append(
                    dict(
                        backbone=name, precision=precision, data=data, items=items, cpu_ms_per_item=round(per_item, 1),
                        hours=round(items * per_item / 3.6e6, 2),
                        gib_float32=round(full, 2), gib_float16=round(half, 2),
                        passes_of_a_run=passes, hours_of_a_run=round(passes * per_item / 3.6e6, 2),
                    )  # fmt: skip
                )
    return rows, []


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            cache_cost,
            'Time and disk of the feature cache',
            repeats=3,
            options=dict(backbones=list(BACKBONES), precisions=list(PRECISIONS), batch=2, image_size=224),
            quick=dict(repeats=1),
            choices=dict(backbones=BACKBONES, precisions=PRECISIONS),
        )
    },
)

if __name__ == '__main__':
    main()
