"""Fill the caches that a config asks for, before any run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import nn

from omh_mmseg.choices import SPLITS
from omh_mmseg.feature_cache.automatic import (
    AUTOMATIC,
    LIMIT_GIB,
    Probes,
    completed,
    folder_of,
    half_precision,
)
from omh_mmseg.feature_cache.build import FeatureCache
from omh_mmseg.feature_cache.cached_features import CachedFeatures
from omh_mmseg.feature_cache.frozen_part import FEATURES, FrozenPart, features_alone
from omh_mmseg.feature_cache.of_model import frozen_part, hook_options, needs, why_live
from omh_mmseg.models.data_preprocessor import preprocessing
from omh_mmseg.models.utils.loaded_weights import fill_model, start
from omh_mmseg.registry import DATASETS, MODELS
from omh_mmseg.utils.config import check_checkpoint
from omh_mmseg.utils.devices import check_device

DEFAULT_FOLDER = 'data/feature_cache'


def prepare_features(cfg: Config, progress: bool = True, **options: Any) -> dict[str, Path]:
    """Make or complete the feature caches of a config; processes of a launcher, which all call this, share the work.

    Args:
        cfg: See `feature_caches`.
        progress: Draw progress bars on stderr.
        **options: See `feature_caches`.

    Returns:
        The cache's folder by split.

    Raises:
        ValueError: See `feature_caches`.
        OSError: The disk has no room.
    """
    made = {}
    for split, loader, cache in feature_caches(cfg, **options):
        cache.complete(loader.get('batch_size') or 1, loader.get('num_workers', 0), progress, together=True)
        made[split] = cache.folder
    return made


def describe_features(cfg: Config, **options: Any) -> str:
    """What :func:`prepare_features` would do, one line per split; nothing is written."""
    return '\n'.join(f'{split}: {cache.describe()}' for split, _, cache in feature_caches(cfg, **options))


def feature_caches(
    cfg: Config,
    splits: Sequence[str] = SPLITS,
    folder: str | None = None,
    dtype: str | None = None,
    device: str = 'cpu',
) -> Iterator[tuple[str, dict[str, Any], FeatureCache]]:
    """The feature caches of a config, as they are on disk.

    Args:
        cfg: Of a host. Weights of ``load_from`` count.
        splits: Among ``'train'``, ``'val'`` and ``'test'``.
        folder: Of all caches; None for that of the config's `FeatureCacheHook`, else ``data/feature_cache``.
        dtype: None for the hook's, as are the jittered views.
        device: Where to compute.

    Yields:
        Split, config of its loader, and its cache.

    Raises:
        ValueError: An unknown split, type or device, or a split that cannot be cached; the message says why.
    """
    unknown = [split for split in splits if split not in SPLITS or cfg.get(f'{split}_dataloader') is None]
    if unknown:
        there = [split for split in SPLITS if cfg.get(f'{split}_dataloader') is not None]
        raise ValueError(f'splits must be among those of the config, {there}; got {unknown}')
    check_device(device)
    options = hook_options(cfg) or {}
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = MODELS.build(cfg.model)
    model.init_weights()
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
        loaded = CheckpointLoader.load_checkpoint(cfg.load_from, map_location='cpu')
        fill_model(model, loaded.get('state_dict', loaded), start())
    model.to(device).eval()
    root = folder or folder_of(options.get('folder'), cfg.get('work_dir')) or DEFAULT_FOLDER
    for split in splits:
        reason = why_live(model, split)
        if reason:
            raise ValueError(f'{split} cannot be cached: {reason}')
        loader = cfg[f'{split}_dataloader']
        dataset = DATASETS.build(_below_pairs(loader.dataset))
        dataset.full_init()
        views = {name: options[name] for name in ('views', 'view_seed') if name in options}
        part = frozen_part(model, cfg.model.backbone, split, **views)
        fields, images = needs(model, split, part, options.get('fields'))
        kept = dtype or options.get('dtype') or 'float32'
        yield split, loader, FeatureCache(root, dataset, part, split == 'train', fields, images, kept)


def cached_train_set(
    cfg: Config, dataset: Any, backbone: nn.Module, preprocessor: nn.Module, progress: bool = True
) -> CachedFeatures | None:
    """The images of a training behind the cache that it reads from, which is completed; None where there is none.

    Ranks of a run, which all call this, get the same.

    Args:
        cfg: Of the training.
        dataset: Its images, completely initialised.
        backbone: Its backbone, with its weights.
        preprocessor: Its data preprocessor, on the device to compute on.
        progress: Draw progress bars on stderr.

    Raises:
        ValueError: See `FeatureCache`.
        OSError: The disk has no room for a cache that the config asks for.
    """
    options = hook_options(cfg) or {}
    root = folder_of(options.get('folder'), cfg.get('work_dir'))
    if root is None or 'train' not in options.get('splits', SPLITS):
        return None
    if preprocessing(preprocessor, True) != preprocessing(preprocessor, False):
        MMLogger.get_current_instance().info('no feature cache for the index: training pads images otherwise')
        return None
    part = FrozenPart(backbone, cfg.model.backbone, preprocessor, features_alone(backbone))
    settings = dataset, part, True, (FEATURES,), False, options.get('dtype', 'float32')
    loader = cfg.train_dataloader

    def complete(cache: FeatureCache, probes: Probes) -> CachedFeatures:
        batch_size, workers = loader.get('batch_size', 16), loader.get('num_workers', 0)
        return cache.complete(batch_size, workers, progress, options.get('verify', True), probes=probes)

    if options['folder'] != AUTOMATIC:
        cache = FeatureCache(root, *settings)
        return complete(cache, cache.probe())
    if half_precision(cfg):
        return None
    # The index alone takes as many forward passes as the cache, and the training reads what is kept of them.
    cached, _ = completed(root, *settings, options.get('limit_gib', LIMIT_GIB), lambda images: images, complete)
    return cached


def _below_pairs(dataset: Any) -> Any:
    pairs = str(dataset.get('type')).rpartition('.')[2] == 'NeighbourPairs'
    return dataset['dataset'] if pairs else dataset
