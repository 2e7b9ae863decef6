"""How fast training data arrive: decoded and cropped by the data loader, or read from the feature cache.

    python benchmarks/reading.py loader                     # pictures like COCO's, made here
    python benchmarks/reading.py loader --images /my/photos --workers 0 4 8
    python benchmarks/reading.py cache                      # making, size and reading of the cache, by type

The forward of the frozen backbone stands beside both.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from cached import CACHED_DTYPES, build_cache, build_loader, write_items, write_photos
from common import MIB, Benchmark, Prepared, Question, Rows, Verdict, interleave
from hosts import BACKBONES, build_model, host_config
from mmengine.dataset import DefaultSampler
from mmengine.registry import DefaultScope
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from omh_mmseg.datasets.transforms.five_crop_patch import five_crop_boxes
from omh_mmseg.feature_cache.build import FeatureCache
from omh_mmseg.feature_cache.cached_features import CachedFeatures
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.dataset_configs import innermost_datasets

PIPELINES = ('crop on the fly, 224', 'stored crop, 224', 'whole image, 320')
REFERENCE_DECODER = 'pillow'
FLAG = 'color_ignore_orientation'
SUFFIXES = ('.jpg', '.jpeg')
DTYPES = ('float32', 'float16', 'bfloat16')
ESTIMATE_TOLERANCE = 0.02


def loader(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Images per second of the data loader alone, and whether it keeps up with the frozen backbone.

    First every decoder that is installed, one image after the other in one process, with how far its pixels are from
    Pillow's, which the hosts' own code uses (docs/methods/data.md 5.6). Then whole epochs of mmengine's loader with the
    pipelines of configs/_base_/datasets/coco-stuff27.py: crops cut on the fly and stored ones at 224, whole images at
    320, and features from a cache, which take the place of the backbone, too. The rates are of items; a pair of STEGO
    is two. Files are in the system's cache. The backbone stands beside them: forward only, on as many threads.
    """
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / 'images'
        paths = photographs(args.images, folder, args.count)
        crops = store_crops(paths, Path(temporary) / 'pictures_five_crop_0.5')
        rows = decoding(paths, args.repeats)
        datasets = {
            (what, REFERENCE_DECODER): build_pipeline(what, folder, crops)
            for what in PIPELINES
        }
        datasets |= cached_datasets(args.backbone, args.device, Path(temporary), args.count)
        for workers in args.workers:
            loaders = {
                key: build_loader(dataset, args.batch_size, DefaultSampler(dataset, shuffle=True), workers)
                for key, dataset in datasets.items()
            }
            names = {f'{what}, {source}, {workers} workers': (what, source) for what, source in loaders}
            alternatives = {name: epoch(loaders[key]) for name, key in names.items()}
            taken = interleave(alternatives, args.repeats, progress=f'{workers} workers')
            for name, key in names.items():
                items = len(loaders[key].dataset)
                rows.append(row(*key, workers, taken[name].wall_ms / items))
            del loaders, alternatives
        torch.set_num_threads(threads)
        rows += backbone_rows(args)
    backbone = max(item['items_per_s'] for item in rows if item['what'].startswith('backbone'))
    workers = max(item['workers'] for item in rows)
    pillow = [item for item in rows if item['what'] in PIPELINES and item['source'] == REFERENCE_DECODER]
    slowest = min((item for item in pillow if item['workers'] == workers), key=lambda item: item['items_per_s'])
    return rows, [
        Verdict(
            f'the loader with {workers} workers and Pillow keeps up with the frozen backbone',
            f'{slowest["items_per_s"]:.1f} items/s at the least ({slowest["what"]}), the backbone takes {backbone:.1f}',
            slowest['items_per_s'] >= backbone,
        )
    ]


def decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
    """Functions from the bytes of a JPEG file to BGR uint8 (H, W, 3), of the libraries that are installed."""
    names = ['pillow', 'cv2'] + (['turbojpeg'] if importlib.util.find_spec('turbojpeg') else [])
    return {name: lambda data, name=name: mmcv.imfrombytes(data, FLAG, backend=name) for name in names}


def decoding(paths: Sequence[Path], repeats: int) -> Rows:
    """Rows of the decoders, one image after the other."""
    contents = [path.read_bytes() for path in paths]
    forms = decoders()

    def decode_all(decode: Callable[[bytes], np.ndarray]) -> Prepared:
        def run() -> None:
            for content in contents:
                np.ascontiguousarray(decode(content))

        return lambda: run

    taken = interleave({name: decode_all(form) for name, form in forms.items()}, repeats, progress='decoders')
    rows = []
    for name, sample in taken.items():
        changed, largest = deviation(forms[name], forms[REFERENCE_DECODER], contents[:8])
        rows.append(
            row('decode', name, 0, sample.wall_ms / len(contents))
            | dict(changed_percent=round(changed, 3), largest_change=largest)
        )
    return rows


def deviation(decode: Callable, reference: Callable, contents: Sequence[bytes]) -> tuple[float, int]:
    """Share of the values that differ from the reference's, in percent, and by how much at most, of 255."""
    changes = [np.abs(decode(content).astype(int) - reference(content)) for content in contents]
    return 100 * float(np.mean([(change > 0).mean() for change in changes])), int(max(c.max() for c in changes))


def row(what: str, source: str, workers: int, milliseconds: float) -> dict[str, Any]:
    """A row of the table, with empty columns for deviations."""
    rates = dict(ms_per_item=round(milliseconds, 3), items_per_s=round(1e3 / milliseconds, 2))
    return dict(what=what, source=source, workers=workers, **rates, changed_percent='', largest_change='')


def build_pipeline(what: str, folder: Path, crops: Path) -> Any:
    """The data set of one of `PIPELINES`."""
    config = host_config('stego')
    whole = what.startswith('whole')
    (training,) = innermost_datasets(config.train_dataloader.dataset).values()
    pipeline = [{**step} for step in (config.test_pipeline if whole else training.pipeline)]
    dataset = dict(type='FolderSegDataset', data_root=str(folder), num_classes=2, labels='none', pipeline=pipeline)
    if not whole:
        stored = dict(stored=str(crops)) if what.startswith('stored') else {}
        dataset = dict(type='FiveCrop', ratio=0.5, dataset=dataset, **stored)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build(dataset)


def epoch(batches: DataLoader) -> Prepared:
    """For `interleave`: a whole epoch, which begins with workers that have nothing ready."""

    def run() -> None:
        for _ in batches:
            pass

    return lambda: run


def backbone_rows(args: argparse.Namespace) -> Rows:
    """Rows of the frozen backbone's forward."""
    backbones = {
        precision: build_model(host_config(backbone=args.backbone, precision=precision), args.device).backbone
        for precision in ('float32', 'bfloat16')
    }
    return [
        row('backbone, 224', precision, 0, forward_ms(backbone, 4, 224, args))
        for precision, backbone in backbones.items()
    ]


def forward_ms(backbone: nn.Module, batch: int, size: int, args: argparse.Namespace) -> float:
    """Milliseconds of a backbone's forward, per image."""
    images = torch.randn(batch, 3, size, size, device=args.device)
    alternative: dict[str, Prepared] = dict(forward=lambda: lambda: backbone(images))
    return interleave(alternative, args.repeats, progress='backbone', device=args.device)['forward'].wall_ms / batch


def cached_datasets(backbone: str, device: str, folder: Path, count: int) -> dict[tuple[str, str], Any]:
    """Features of pictures of 224 x 224 and their labels, by type."""
    write_items(folder / 'items', count, 224)
    config = host_config('stego', backbone=backbone)
    model = build_model(config, device)
    return {
        ('features from the cache, 224', dtype): build_cache(
            model, config, folder / 'items', folder / 'caches', dtype
        ).complete(progress=False)
        for dtype in CACHED_DTYPES
    }


def photographs(given: Path | None, folder: Path, count: int) -> list[Path]:
    """JPEG files in a folder of their own: made, or links to some of those given."""
    if given is None:
        return write_photos(folder, count)
    found = sorted(path for path in given.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f'reading.py: there are no JPEG files below {given}')
    folder.mkdir(parents=True)
    links = []
    for number, path in enumerate(found[:: max(1, len(found) // count)][:count]):
        links.append(folder / f'{number:06d}.jpg')
        links[-1].symlink_to(path.resolve())
    return links


def store_crops(paths: Sequence[Path], folder: Path) -> Path:
    """Crops cut beforehand, in the layout that `FiveCrop` reads."""
    target = folder / 'img' / 'train'
    target.mkdir(parents=True)
    for number, path in enumerate(paths):
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            for crop, box in enumerate(five_crop_boxes(image.height, image.width, 0.5)):
                image.convert('RGB').crop(box).save(target / f'{5 * number + crop}.jpg', quality=95)
    return folder


def cache(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """The feature cache by type: how fast it is made, how large it is beside its estimate, how fast it is read.

    Pictures of 224 x 224 through ViT-S/8, whose features are 384 x 28 x 28. Making includes decoding, the backbone, the
    check of what was written, and writing; the bare forward of the backbone on as many images stands beside it. Reading
    is that of all items in random order, as a training asks for them, stacked to batches by the data preprocessor: from
    the system's cache (warm), and from the disk, after the system was told to forget the files (cold, where it can be
    told).
    """
    torch.manual_seed(0)
    config = host_config('stego', backbone=args.backbone, image_size=args.image_size)
    model = build_model(config, args.device)
    rows: Rows = []
    with tempfile.TemporaryDirectory() as temporary:
        items, root = Path(temporary) / 'items', Path(temporary) / 'caches'
        write_items(items, args.count, args.image_size)
        bare = forward_ms(model.backbone, args.batch_size, args.image_size, args)
        for dtype in DTYPES:
            made = build_cache(model, config, items, root, dtype)
            estimate = made.needed_bytes(made.probe())
            began = time.perf_counter()
            dataset = made.complete(args.batch_size, progress=False)
            making = time.perf_counter() - began
            size = sum(path.stat().st_size for path in made.folder.rglob('*') if path.is_file())
            reading = {f'{name}_items_per_s': rate for name, rate in reading_rates(model, made, dataset, args).items()}
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
    worst = max(rows, key=lambda row: abs(row['mib'] / row['estimated_mib'] - 1))
    return rows, [
        Verdict(
            f'the size of the feature cache is within {100 * ESTIMATE_TOLERANCE:.0f} % of its estimate',
            f'{worst["mib"]:.1f} MiB for {worst["estimated_mib"]:.1f} MiB estimated, in {worst["dtype"]}',
            abs(worst['mib'] / worst['estimated_mib'] - 1) <= ESTIMATE_TOLERANCE,
        )
    ]


def reading_rates(model: nn.Module, made: FeatureCache, dataset: CachedFeatures, args: Any) -> dict[str, Any]:
    """Items per second, read warm and, where the system can be told to forget files, cold."""
    batches = build_loader(dataset, args.batch_size, DefaultSampler(dataset, shuffle=True))

    def read() -> None:
        for data in batches:
            model.data_preprocessor(data, training=True)

    def cold() -> Callable[[], None]:
        forget(dataset)
        return read

    result: dict[str, Any] = dict(warm='', cold='')
    alternatives: dict[str, Prepared] = dict(warm=lambda: read)
    if hasattr(os, 'posix_fadvise'):
        alternatives['cold'] = cold
    for name, prepare in alternatives.items():
        taken = interleave({name: prepare}, args.repeats, progress=f'{made.dtype}, {name}', device=args.device)
        result[name] = round(1e3 * len(dataset) / taken[name].wall_ms, 1)
    return result


def forget(dataset: CachedFeatures) -> None:
    """Have the system forget the files of a cache, so that the next reader goes to the disk."""
    for field in dataset.fields.values():
        field.close()  # pages that are mapped stay
        with field.data_path.open('rb+') as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


main = Benchmark(
    __file__,
    __doc__,
    dict(
        loader=Question(
            loader,
            'The data loader alone',
            repeats=3,
            options=dict(images=None, count=48, workers=[0, 1, 2], batch_size=16, backbone='vit-s8'),
            quick=dict(repeats=1, count=16, workers=[0, 2]),
            choices=dict(backbone=BACKBONES),
            device='cpu',
        ),
        cache=Question(
            cache,
            'The feature cache, per item',
            repeats=3,
            options=dict(count=64, batch_size=16, image_size=224, backbone='vit-s8'),
            quick=dict(repeats=1, count=16),
            choices=dict(backbone=BACKBONES),
            device='cpu',
        ),
    ),
)

if __name__ == '__main__':
    main()
