"""Lets a run read frozen features from disk instead of computing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from omh_mmseg.choices import SPLITS
from omh_mmseg.datasets.samplers import SeededInfiniteSampler, seed_items
from omh_mmseg.datasets.wrapper import DatasetWrapper, outside_cache
from omh_mmseg.engine.models import model_of
from omh_mmseg.feature_cache.automatic import AUTOMATIC, LIMIT_GIB, Probes, completed, folder_of, half_precision
from omh_mmseg.feature_cache.build import FeatureCache
from omh_mmseg.feature_cache.cached_features import SAMPLE, CachedFeatures
from omh_mmseg.feature_cache.disk import gibibytes
from omh_mmseg.feature_cache.of_model import frozen_part, needs, why_live
from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.checks import POSITIVE, STEPS, ranges
from omh_mmseg.utils.generators import seeded

OF_WORKERS = ('num_workers', 'timeout', 'multiprocessing_context', 'prefetch_factor', 'persistent_workers')
"""Options of a loader that belong to its number of workers."""
LOADER_OPTIONS = (*OF_WORKERS, 'collate_fn', 'pin_memory', 'worker_init_fn', 'generator')


@HOOKS.register_module()
class FeatureCacheHook(Hook):
    """Puts the data sets of a run behind a cache of the frozen backbone's features, and fills it first.

    Channel dropout and projection come after the features, so that training from a cache in float32 is training. Below
    ``folder`` each cache has a folder of its own, named by all that it depends on: backbone, weights, preprocessing,
    pipeline, and the list of files with sizes and times. A change of anything makes another cache; the old one stays
    until it is deleted.

    What cannot come from a cache goes through the backbone as ever: sliding windows, the views of ``--tta``, and the
    jittered view of `HiddenPositives`, which is another one in each step unless ``views`` is set.

    Args:
        folder: Of all caches; None for no cache. ``'auto'`` means the folder ``feature_cache`` beside the run's work
            directory, and a cache only where it is exact, not above ``limit_gib``, and takes no more forward passes
            than it saves; otherwise the run says why there is none.
        dtype: ``'float32'`` is exact; ``'float16'`` and ``'bfloat16'`` take half the space.
        splits: The loops that read from a cache, among ``'train'``, ``'val'`` and ``'test'``.
        verify: Compare the check sums of a whole cache before it is used, and make damaged items anew; otherwise each
            item is checked when it is read first, and a damaged one stops the run.
        views: Jittered views of each training image that are drawn once and cached; each step takes one of them at
            random in place of a fresh one, which is not the same training. 0, the default, draws a fresh one each time.
        view_seed: Of these views, which runs of all seeds share; view v of item i follows from it, i and v alone.
        limit_gib: Largest size in GiB of a cache that ``'auto'`` makes.
        fields: Those of the host's frozen fields that training reads from the cache, where all would take too much
            room; the others are computed from the images at each step. None for all.
        workers: Processes that load for a loop that takes all it needs from a cache, in place of its loader's: reading
            a file takes less than handing what is read to another process. Training keeps its loader's where what it
            draws would be another with them, see `SeededInfiniteSampler`. None for those of the loaders.

    Attributes:
        declined: Loops for which ``'auto'`` found no cache, each with the reason.

    Raises:
        ValueError: If an option is unknown, or would reach nothing; before a loop, if its pipeline draws at random, its
            items cannot be kept, or there are to be views for a model that trains on none.
        OSError: Before a loop, if the disk has no room for the cache.
    """

    priority = 'VERY_HIGH'

    @ranges(views='[0, 1024]', view_seed=STEPS, limit_gib=POSITIVE, workers='[0, 1024]')
    def __init__(
        self,
        folder: str | None = None,
        dtype: str = 'float32',
        splits: Sequence[str] = SPLITS,
        verify: bool = True,
        views: int = 0,
        view_seed: int = 0,
        limit_gib: float = LIMIT_GIB,
        fields: Sequence[str] | None = None,
        workers: int | None = 0,
    ) -> None:
        if not set(splits) <= set(SPLITS):
            raise ValueError(f'splits of the feature cache must be among {SPLITS}; got {tuple(splits)}.')
        if views and (folder is None or 'train' not in splits):
            raise ValueError(
                f'views={views} of the feature cache would reach nothing, since training does not read from it: set '
                f"default_hooks.feature_cache.folder, and splits with 'train'; got {folder!r} and {tuple(splits)}."
            )
        self.folder, self.dtype, self.splits, self.verify = folder, dtype, tuple(splits), verify
        self.views, self.view_seed, self.limit_gib = views, view_seed, limit_gib
        self.kept = None if fields is None else tuple(fields)
        self.workers = workers
        self.declined: dict[str, str] = {}
        self._own_workers: dict[str, dict[str, Any]] = {}

    def before_train(self, runner: Runner) -> None:
        """Fill and use the cache of the train set, once weights and checkpoint are loaded."""
        self._use(runner, runner.train_loop, 'train')

    def before_val(self, runner: Runner) -> None:
        """Fill and use the cache of the validation set."""
        self._use(runner, runner.val_loop, 'val')

    def before_test(self, runner: Runner) -> None:
        """Fill and use the cache of the test set."""
        self._use(runner, runner.test_loop, 'test')

    def _use(self, runner: Runner, loop: Any, split: str) -> None:
        root = folder_of(self.folder, runner.work_dir)
        if root is None or split not in self.splits or split in self.declined:
            return
        model = model_of(runner)
        pairs, dataset = outside_cache(loop.dataloader.dataset)
        reason = why_live(model, split)
        if reason:
            runner.logger.info(f'no feature cache for {split}: {reason}')
            if isinstance(dataset, CachedFeatures):
                self._place(runner, loop, split, pairs, dataset.dataset)
            return
        part = frozen_part(model, backbone_config(runner.cfg), split, self.views, self.view_seed)
        fields, images = needs(model, split, part, self.kept)
        cached = dataset if isinstance(dataset, CachedFeatures) else None
        if cached is not None:
            if set(cached.fields) - {SAMPLE} == set(fields) and cached.images == images:
                return
            dataset = cached.dataset
        seen = 1 + sum(each.extra_views for each in pairs)

        def complete(cache: FeatureCache, probes: Probes) -> CachedFeatures:
            _announce(runner, cache, probes, loop, split, seen)
            batch_size, workers = loop.dataloader.batch_size or 1, loop.dataloader.num_workers
            return cache.complete(batch_size, workers, is_main_process(), self.verify, probes=probes)

        settings = dataset, part, split == 'train', fields, images, self.dtype
        made: CachedFeatures | None = None
        with seeded('feature cache'):
            if self.folder != AUTOMATIC:
                cache = FeatureCache(root, *settings)
                made = complete(cache, cache.probe())
            else:
                reason = half_precision(runner.cfg) or _mixed(loop)
                if not reason:
                    saved = partial(_saved, runner, loop, split, seen)
                    made, reason = completed(root, *settings, self.limit_gib, saved, complete)
        if made is None:
            self.declined[split] = reason or ''
            runner.logger.info(f'no feature cache for {split}: {reason}')
            if split == 'train' and self.views:
                raise ValueError(f'views={self.views} of the feature cache would reach nothing, without one: {reason}')
            if cached is None:
                return
        self._place(runner, loop, split, pairs, dataset if made is None else made)

    def _place(self, runner: Runner, loop: Any, split: str, pairs: Sequence[DatasetWrapper], dataset: Any) -> None:
        """Let a loop load from another data set of the same items."""
        if pairs:
            pairs[-1].dataset = dataset
        images = not isinstance(dataset, CachedFeatures) or dataset.images or any(each.reads_images for each in pairs)
        # Other samplers' items draw from the generators of the process that loads them.
        same = split != 'train' or isinstance(loop.dataloader.sampler, SeededInfiniteSampler)
        workers = self._own_workers.setdefault(split, {name: getattr(loop.dataloader, name) for name in OF_WORKERS})
        if not images and same and self.workers not in (None, workers['num_workers']):
            workers = dict(num_workers=self.workers)
        reload_loop(runner, loop, split, pairs[0] if pairs else dataset, workers)


def reload_loop(
    runner: Runner, loop: Any, split: str, dataset: Any, workers: Mapping[str, Any] | None = None
) -> None:
    """Let a loop draw from its loader's sampler again, and load from a data set of the same items.

    Args:
        runner: Of the loop.
        loop: Its loader is replaced.
        split: Its name.
        dataset: What to load from.
        workers: See `reloaded`.
    """
    iterator = getattr(loop, 'dataloader_iterator', None)
    sampler = loop.dataloader.sampler
    # Earlier versions of mmengine draw the first batches as soon as the loop is built.
    if getattr(iterator, '_iterator', None) is not None:
        seed = getattr(sampler, 'seed', runner.seed)
        sampler = DATA_SAMPLERS.build(
            runner.cfg[f'{split}_dataloader'].sampler, default_args=dict(dataset=dataset, seed=seed)
        )
    if isinstance(sampler, SeededInfiniteSampler):
        seed_items(dataset)
    loop.dataloader = reloaded(loop.dataloader, dataset, sampler, workers)
    if iterator is not None:
        loop.dataloader_iterator = type(iterator)(loop.dataloader)


def backbone_config(cfg: Any) -> Any:
    """Config of the backbone of a run.

    Raises:
        ValueError: It is not known.
    """
    backbone_cfg = (cfg.get('model') or {}).get('backbone') if hasattr(cfg, 'get') else None
    if backbone_cfg is None:
        raise ValueError(
            'the feature cache belongs to a config of the backbone, and this run has none; build the runner by '
            'Runner.from_cfg, or set default_hooks.feature_cache.folder=None'
        )
    return backbone_cfg


def reloaded(loader: DataLoader, dataset: Any, sampler: Any, workers: Mapping[str, Any] | None = None) -> DataLoader:
    """A loader like another one, of another data set; what was drawn from the sampler stays drawn.

    Args:
        loader: The other one.
        dataset: What to load from.
        sampler: The order.
        workers: Options among ``OF_WORKERS`` in place of all of the other's; None for the same.
    """
    options: dict[str, Any] = {name: getattr(loader, name) for name in LOADER_OPTIONS}
    if workers is not None:
        options = {name: value for name, value in options.items() if name not in OF_WORKERS} | dict(workers)
    if loader.batch_size is None:
        return DataLoader(dataset, batch_sampler=loader.batch_sampler, **options)
    return DataLoader(dataset, loader.batch_size, sampler=sampler, drop_last=loader.drop_last, **options)


def _saved(runner: Runner, loop: Any, split: str, views: int, images: int) -> int:
    """Forward passes of an image that a run saves by a cache of so many images, beside those that made it."""
    if split == 'train':
        return (loop.max_iters - loop.iter) * (loop.dataloader.batch_size or 1) * views * get_world_size()
    # The first of the evaluations computes what the others read.
    train = runner.train_loop if split == 'val' and runner._train_loop is not None else None
    interval = getattr(train, 'val_interval', None)
    return 0 if train is None or not interval else images * (-(-(train.max_iters - train.iter) // interval))


def _mixed(loop: Any) -> str:
    mixed = getattr(loop, 'fp16', False)
    return 'the evaluation is in mixed precision, and a cache is not built in it' if mixed else ''


def _announce(runner: Runner, cache: FeatureCache, probes: Probes, loop: Any, split: str, views: int) -> None:
    missing = cache.passes()
    if split == 'train':
        steps = loop.max_iters - loop.iter
        run = f'its {steps} steps take {_saved(runner, loop, split, views, len(cache))} of them without a cache'
    else:
        run = f'each evaluation takes {len(cache)} of them without a cache'
    state = f'filled by {missing} forward passes of an image' if missing else 'complete'
    size = gibibytes(cache.held_bytes() + cache.needed_bytes(probes))
    runner.logger.info(
        f'feature cache of {split}, {cache.folder.resolve()}, {size} when complete: {state}; {run}; '
        'default_hooks.feature_cache.folder=None runs without'
    )
