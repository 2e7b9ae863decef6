"""A cache for runs whose config leaves it open: used where it changes nothing, fits, and saves forward passes."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mmengine.dist import all_gather_object

from omh_mmseg.feature_cache.build import FeatureCache
from omh_mmseg.feature_cache.cached_features import DTYPES, CachedFeatures
from omh_mmseg.feature_cache.disk import free_bytes, gibibytes
from omh_mmseg.feature_cache.frozen_part import FrozenPart
from omh_mmseg.feature_cache.items import check_item
from omh_mmseg.utils.generators import seeded

AUTOMATIC = 'auto'
BESIDE_RUNS = 'feature_cache'
"""Name of the folder of automatic caches, beside the work directories of the runs that share them."""
LIMIT_GIB = 2.0
SPARE = 2
"""So many times what a cache takes must be free on the disk, which is not the cache's own."""
Probes: TypeAlias = Mapping[int, Mapping[str, Any]]
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def folder_of(folder: str | None, work_dir: str | None) -> str | None:
    """Where the caches of a run are; None where there are none."""
    if folder != AUTOMATIC:
        return folder
    return None if work_dir is None else str(Path(work_dir).absolute().parent / BESIDE_RUNS)


def half_precision(cfg: Mapping[str, Any]) -> str:
    """Why live features are not those of a cache, under mixed precision; empty where they are."""
    kind = str((cfg.get('optim_wrapper') or {}).get('type')).rpartition('.')[2]
    mixed = kind == 'AmpOptimWrapper'
    return 'the backbone computes in mixed precision, and a cache is not built in it' if mixed else ''


def completed(
    root: str,
    dataset: Any,
    part: FrozenPart,
    training: bool,
    fields: Sequence[str],
    images: bool,
    dtype: str,
    limit: float,
    saved: Callable[[int], int],
    complete: Callable[[FeatureCache, Probes], CachedFeatures],
) -> tuple[CachedFeatures | None, str]:
    """The completed cache of a data set, or why there is none; the same on all ranks of a run, which all call this.

    Args:
        root: See `FeatureCache`, like the six that follow.
        dataset: Completely initialised.
        part: What is cached.
        training: Whether images are padded as in training.
        fields: Of the items.
        images: Whether the items need the images as well.
        dtype: Of features.
        limit: Largest size of the cache in GiB.
        saved: From the number of images to the forward passes that a complete cache saves.
        complete: Completes it, given the probes of `FeatureCache.probe`.

    Raises:
        OSError: What is there cannot be read.
    """
    cache, cached = None, None
    probes: Probes = {}
    try:
        reason = _why_not(Path(root), dataset, part, training, fields, dtype, limit)
        if not reason:
            cache = FeatureCache(root, dataset, part, training, fields, images, dtype)
            passes, gain = cache.passes(), saved(len(cache))
            if passes > gain:
                reason = f'it would take {passes} forward passes of an image, and save {gain}'
            else:
                probes = cache.probe()
    except ValueError as error:
        reason = str(error)
    reason = _agreed(reason)
    if not reason and cache is not None:
        try:
            cached = complete(cache, probes)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            reason = f'{error}; what is there of it, {cache.folder.resolve()}, may be deleted'
        reason = _agreed(reason)
    return (None, reason) if reason else (cached, '')


def _why_not(
    root: Path, dataset: Any, part: FrozenPart, training: bool, fields: Sequence[str], dtype: str, limit: float
) -> str:
    """What a look at one image tells, before the files of all images are looked at."""
    with seeded('feature cache'):
        item = dataset[0]
    check_item(item)
    size = 0
    for _, contents in part.compute([item['inputs']], fields, training):
        size += len(dataset) * sum(value.numel() * DTYPES[dtype].itemsize for value in contents.values())
    if size > limit * 2**30:
        return f'it would take {gibibytes(size)}, and default_hooks.feature_cache.limit_gib is {limit:g}'
    # What is there already needs no room; that is little beside what is asked for here.
    if SPARE * size > free_bytes(root):
        return f'it would take {gibibytes(size)}, and {gibibytes(free_bytes(root))} are free at {root.resolve()}'
    root = root.resolve()
    try:
        # The folder itself is made with the cache.
        with tempfile.TemporaryFile(dir=next(folder for folder in (root, *root.parents) if folder.exists())):
            pass
    except OSError as error:
        return f'{root} cannot be written ({error.strerror or error})'
    return ''


def _agreed(reason: str) -> str:
    """The reason of the first rank that has one."""
    return next(filter(None, all_gather_object(reason)), '')
