"""Pictures whose JPEG files are as large, and as slow to decode, as those of COCO; a data set of them and its cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common  # noqa: F401  makes the package importable
import numpy as np
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler, pseudo_collate
from mmengine.registry import DefaultScope
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from omh_mmseg.datasets import NeighbourPairs
from omh_mmseg.datasets.fingerprint import dataset_fingerprint
from omh_mmseg.datasets.neighbours.index import write_index
from omh_mmseg.feature_cache.build import FeatureCache
from omh_mmseg.feature_cache.cached_features import CachedFeatures
from omh_mmseg.feature_cache.of_model import frozen_part, needs
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.files import replaced_when_complete

CACHED_DTYPES = ('float32', 'float16')
NEIGHBOURS = 7
CLASSES = 27
PATTERNS = 3
COARSEST = 4
DECAY = 0.2
GREY = 0.6
CONTRAST = 60
QUALITY = 92


def write_photos(folder: Path, count: int, height: int = 480, width: int = 640) -> list[Path]:
    """Write pictures of noise at all scales: about 168 kB of JPEG at 640 x 480; those of COCO have 163 kB on average.

    Args:
        folder: Made if absent.
        count: How many.
        height: In pixels.
        width: In pixels.

    Returns:
        The files, in the order of their names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    patterns = [_pattern(random, height, width) for _ in range(min(PATTERNS, count))]
    paths = []
    for number in range(count):
        rolled = np.roll(patterns[number % len(patterns)], random.integers(0, (height, width)), axis=(0, 1))
        paths.append(folder / f'{number:06d}.jpg')
        Image.fromarray(rolled).save(paths[-1], quality=QUALITY)
    return paths


def _pattern(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 (H, W, 3): octaves of noise, finer ones weaker, mostly grey as the world is."""
    total = np.zeros((height, width, 3), np.float32)
    side = COARSEST
    while side <= width:
        noise = random.normal(size=(max(1, side * height // width), side, 3)).astype(np.float32)
        channels = [Image.fromarray(noise[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        octave = np.stack([np.asarray(channel) for channel in channels], axis=-1)
        octave = GREY * octave.mean(axis=-1, keepdims=True) + (1 - GREY) * octave
        total += octave * (COARSEST / side) ** DECAY
        side *= 2
    return (128 + CONTRAST * total / total.std()).clip(0, 255).astype(np.uint8)


def write_items(folder: Path, count: int, size: int) -> Path:
    """Square pictures and labels, in the layout of `FolderSegDataset`; returns the folder."""
    write_photos(folder / 'images', count, size, size)
    (folder / 'labels').mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        label = random.integers(0, CLASSES, (size, size), dtype=np.uint8)
        Image.fromarray(label).save(folder / 'labels' / f'{number:06d}.png')
    return folder


def build_dataset(folder: Path) -> Any:
    """The data set of such a folder; nothing is resized."""
    pipeline = [
        dict(type='LoadImageFromFile', imdecode_backend='pillow'),
        dict(type='LoadOptionalAnnotations'),
        dict(type='PackSegInputs', meta_keys=('img_path', 'ori_shape', 'img_shape')),
    ]
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build(
            dict(type='FolderSegDataset', data_root=str(folder), num_classes=CLASSES, pipeline=pipeline)
        )


def build_cache(
    model: nn.Module, config: Config, folder: Path, root: Path, dtype: str, views: int = 0
) -> FeatureCache:
    """The cache of a folder's items under a model; nothing is computed yet."""
    part = frozen_part(model, config.model.backbone, 'train', views)
    fields, images = needs(model, 'train', part)
    return FeatureCache(root, build_dataset(folder), part, True, fields, images, dtype)


def paired(dataset: CachedFeatures, folder: Path) -> NeighbourPairs:
    """Pairs of cached items, with neighbours drawn by chance."""
    images = dataset.dataset
    items = np.arange(len(images), dtype=np.int32)[:, None]
    ranks = np.arange(min(NEIGHBOURS + 1, len(images)), dtype=np.int32)
    path = folder / 'neighbours.npz'
    with replaced_when_complete(path) as file:
        write_index(file, (items + ranks) % len(images), dataset_fingerprint(images))
    pairs = NeighbourPairs(images, path, num_neighbours=min(NEIGHBOURS, len(images) - 1))
    # As the hook of a training does it, once the index is known to belong to the images.
    pairs.dataset = dataset
    return pairs


def cached_batches(
    model: nn.Module, config: Config, folder: Path, root: Path, dtype: str, batch: int, pairs: bool, views: int = 0
) -> Iterator[dict[str, Any]]:
    """Batches of a training from its cache, without end, loaded in this process when they are asked for."""
    dataset: Any = build_cache(model, config, folder, root, dtype, views).complete(batch, progress=False)
    if pairs:
        dataset = paired(dataset, folder)
    return iter(build_loader(dataset, batch, InfiniteSampler(dataset, shuffle=True)))


def build_loader(dataset: Any, batch: int, sampler: Any, workers: int = 0) -> DataLoader:
    """A loader of a built data set, as a run has it."""
    options = dict(num_workers=workers, persistent_workers=workers > 0, collate_fn=pseudo_collate)
    return DataLoader(dataset, batch, sampler=sampler, **options)
