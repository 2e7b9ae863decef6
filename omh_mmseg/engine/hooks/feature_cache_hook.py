"""Lets a run read frozen features from disk instead of computing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from omh_mmseg.datasets.neighbours.pairs import NeighbourPairs
from omh_mmseg.datasets.samplers import SeededInfiniteSampler, seed_items
from omh_mmseg.engine.models import model_of
from omh_mmseg.feature_cache.build import FeatureCache
from omh_mmseg.feature_cache.cached_features import SAMPLE, CachedFeatures
from omh_mmseg.feature_cache.of_model import SPLITS, frozen_part, needs, why_live
from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.checks import STEPS, ranges
from omh_mmseg.utils.generators import seeded

LOADER_OPTIONS = (
    'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context', 'generator',
    'prefetch_factor', 'persistent_workers',
)  # fmt: skip


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
        folder: Of all caches. None switches the hook off.
        dtype: ``'float32'`` is exact; ``'float16'`` and ``'bfloat16'`` take half the space.
        splits: The loops that read from a cache, among ``'train'``, ``'val'`` and ``'test'``.
        verify: Compare the check sums of a whole cache before it is used, and make damaged items anew; otherwise each
            item is checked when it is read first, and a damaged one stops the run.
        views: Jittered views of each training image that are drawn once and cached; each step takes one of them at
            random in place of a fresh one, which is not the same training. 0, the default, draws a fresh one each time.
        view_seed: Of these views, which runs of all seeds share; view v of item i follows from it, i and v alone.

    Raises:
        ValueError: If an option is unknown, or would reach nothing; before a loop, if its pipeline draws at random, its
            items cannot be kept, or there are to be views for a model that trains on none.
        OSError: Before a loop, if the disk has no room for the cache.
    """

    priority = 'VERY_HIGH'

    @ranges(views='[0, 1024]', view_seed=STEPS)
    def __init__(
        self,
        folder: str | None = None,
        dtype: str = 'float32',
        splits: Sequence[str] = SPLITS,
        verify: bool = True,
        views: int = 0,
        view_seed: int = 0,
    ) -> None:
        if not set(splits) <= set(SPLITS):
            raise ValueError(f'splits of the feature cache must be among {SPLITS}; got {tuple(splits)}.')
        if views and (folder is None or 'train' not in splits):
            raise ValueError(
                f'views={views} of the feature cache would reach nothing, since training does not read from it: set '
                f"default_hooks.feature_cache.folder, and splits with 'train'; got {folder!r} and {tuple(splits)}."
            )
        self.folder, self.dtype, self.splits, self.verify = folder, dtype, tuple(splits), verify
        self.views, self.view_seed = views, view_seed

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
        if self.folder is None or split not in self.splits:
            return
        model = model_of(runner)
        dataset = loop.dataloader.dataset
        pairs = dataset if isinstance(dataset, NeighbourPairs) else None
        dataset = dataset if pairs is None else pairs.dataset
        reason = why_live(model, split)
        if reason:
            runner.logger.info(f'no feature cache for {split}: {reason}')
            if isinstance(dataset, CachedFeatures):
                self._place(runner, loop, split, pairs, dataset.dataset)
            return
        part = frozen_part(model, backbone_config(runner.cfg), split, self.views, self.view_seed)
        fields, images = needs(model, split, part)
        if isinstance(dataset, CachedFeatures):
            if set(dataset.fields) - {SAMPLE} == set(fields) and dataset.images == images:
                return
            dataset = dataset.dataset
        with seeded('feature cache'):
            cache = FeatureCache(self.folder, dataset, part, split == 'train', fields, images, self.dtype)
            _announce(runner, cache, loop, split, 1 if pairs is None else 2)
            batch_size, workers = loop.dataloader.batch_size or 1, loop.dataloader.num_workers
            cached = cache.complete(batch_size, workers, is_main_process(), self.verify)
            self._place(runner, loop, split, pairs, cached)

    def _place(self, runner: Runner, loop: Any, split: str, pairs: NeighbourPairs | None, dataset: Any) -> None:
        """Let a loop load from another data set of the same items."""
        if pairs is not None:
            pairs.dataset = dataset
            dataset = pairs
        reload_loop(runner, loop, split, dataset)


def reload_loop(runner: Runner, loop: Any, split: str, dataset: Any) -> None:
    """Let a loop draw from its loader's sampler again, and load from a data set of the same items."""
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
    loop.dataloader = reloaded(loop.dataloader, dataset, sampler)
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


def reloaded(loader: DataLoader, dataset: Any, sampler: Any) -> DataLoader:
    """A loader like another one, of another data set; what was drawn from the sampler stays drawn."""
    options: dict[str, Any] = {name: getattr(loader, name) for name in LOADER_OPTIONS}
    if loader.batch_size is None:
        return DataLoader(dataset, batch_sampler=loader.batch_sampler, **options)
    return DataLoader(dataset, loader.batch_size, sampler=sampler, drop_last=loader.drop_last, **options)


def _announce(runner: Runner, cache: FeatureCache, loop: Any, split: str, views: int) -> None:
    missing = cache.passes()
    if split == 'train':
        steps = loop.max_iters - loop.iter
        needed = steps * (loop.dataloader.batch_size or 1) * views * get_world_size()
        run = f'its {steps} steps take {needed} of them without a cache'
    else:
        run = f'each evaluation takes {len(cache)} of them without a cache'
    state = f'filled by {missing} forward passes of an image' if missing else 'complete'
    runner.logger.info(f'feature cache of {split}, {cache.folder}: {state}; {run}')
