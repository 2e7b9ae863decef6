"""The feature cache by type: how fast it is made, how large it is beside its estimate, how fast it is read.

    python benchmarks/feature_cache.py

Pictures of 224 x 224 through ViT-S/8, whose features are 384 x 28 x 28. Making includes decoding, the backbone, the
check of what was written, and writing; the bare forward of the backbone on as many images stands beside it. Reading is
that of all items in random order, as a training asks for them, stacked to batches by the data preprocessor: from the
system's cache (warm), and from the disk, after the system was told to forget the files (cold, where it can be told).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from cached import build_cache, build_loader, write_items
from common import Verdict, finish, interleave, parser, positive, start
from hosts import BACKBONES, build_model, host_config
from memory import MIB
from mmengine.dataset import DefaultSampler
from torch import nn

from omh_mmseg.feature_cache import CachedFeatures, FeatureCache

DTYPES = ('float32', 'float16', 'bfloat16')
ESTIMATE_TOLERANCE = 0.02


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=3, device=True)
    options.add_argument('--count', type=positive, default=64, help='images')
    options.add_argument('--batch-size', type=positive, default=16)
    options.add_argument('--image-size', type=positive, default=224)
    options.add_argument('--backbone', choices=BACKBONES, default='vit-s8', help='tiny: to try the script')
    args = options.parse_args(argv)
    environment = start(args)
    torch.manual_seed(0)
    config = host_config('stego', backbone=args.backbone, image_size=args.image_size)
    model = build_model(config, args.device)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        items, root = Path(temporary) / 'items', Path(temporary) / 'caches'
        write_items(items, args.count, args.image_size)
        bare = forward_ms(model, args)
        for dtype in DTYPES:
            cache = build_cache(model, config, items, root, dtype)
            estimate = cache.needed_bytes(cache.probe())
            began = time.perf_counter()
            dataset = cache.complete(args.batch_size, progress=False)
            making = time.perf_counter() - began
            size = sum(path.stat().st_size for path in cache.folder.rglob('*') if path.is_file())
            reading = {f'{name}_items_per_s': rate for name, rate in reading_rates(model, cache, dataset, args).items()}
            rows.append(
                dict(
                    dtype=dtype,
                    items=args.count,
                    making_ms=round(1e3 * making / args.count, 2),
                    forward_ms=round(bare, 2),
                    mib=round(size / MIB, 2),
                    estimated_mib=round(estimate / MIB, 2),
                    **reading,
                )
            )
    return finish('feature_cache', 'The feature cache, per item', rows, environment, args, judge(rows))


def forward_ms(model: nn.Module, args: Any) -> float:
    """Milliseconds of the backbone's forward, per image."""
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size, device=args.device)
    alternative: dict[str, Callable[[], Callable[[], object]]] = {'forward': lambda: lambda: model.backbone(images)}
    taken = interleave(alternative, args.repeats, progress='bare forward', device=args.device)
    return taken['forward'].wall_ms / args.batch_size


def reading_rates(model: nn.Module, cache: FeatureCache, dataset: CachedFeatures, args: Any) -> dict[str, Any]:
    """Items per second, read warm and, where the system can be told to forget files, cold."""
    loader = build_loader(dataset, args.batch_size, DefaultSampler(dataset, shuffle=True))

    def read() -> None:
        for data in loader:
            model.data_preprocessor(data, training=True)

    def cold() -> Callable[[], None]:
        forget(dataset)
        return read

    result: dict[str, Any] = dict(warm='', cold='')
    alternatives: dict[str, Callable[[], Callable[[], object]]] = dict(warm=lambda: read)
    if hasattr(os, 'posix_fadvise'):
        alternatives['cold'] = cold
    for name, prepare in alternatives.items():
        taken = interleave({name: prepare}, args.repeats, progress=f'{cache.dtype}, {name}', device=args.device)
        result[name] = round(1e3 * len(dataset) / taken[name].wall_ms, 1)
    return result


def forget(dataset: CachedFeatures) -> None:
    """Have the system forget the files of a cache, so that the next reader goes to the disk."""
    for field in dataset.fields.values():
        field.close()  # pages that are mapped stay
        with field.data_path.open('rb+') as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def judge(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """Whether the estimate holds."""
    worst = max(rows, key=lambda row: abs(row['mib'] / row['estimated_mib'] - 1))
    return [
        Verdict(
            f'the size of the feature cache is within {100 * ESTIMATE_TOLERANCE:.0f} % of its estimate',
            f'{worst["mib"]:.1f} MiB for {worst["estimated_mib"]:.1f} MiB estimated, in {worst["dtype"]}',
            abs(worst['mib'] / worst['estimated_mib'] - 1) <= ESTIMATE_TOLERANCE,
        )
    ]


if __name__ == '__main__':
    main()
