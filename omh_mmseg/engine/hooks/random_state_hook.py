"""Lets what a training step draws depend on the seed, the rank and the step alone."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.datasets.neighbours.pairs import NeighbourPairs
from omh_mmseg.datasets.random_transforms import random_transforms, transforms_of
from omh_mmseg.datasets.samplers import SeededInfiniteSampler
from omh_mmseg.datasets.wrapper import datasets_in
from omh_mmseg.feature_cache.cached_features import CachedFeatures
from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.generators import seed_generators

CHECKPOINT_KEY = 'sampler_seed'


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Seeds all random generators anew before each training step, by the run's seed, the rank and the step.

    Dropouts and every draw of a loss then depend on nothing that came before: a resumed run continues bit by bit (on a
    CPU; on a GPU as far as its operations are deterministic), validations leave no trace, and neither does what ran
    earlier in the process. Ranks draw apart, while initial weights, drawn before, are the same on all of them.

    What the data pipeline draws comes from `SeededInfiniteSampler`, whose seed is kept in the checkpoints. Another
    sampler is warned about where the pipeline draws at random.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.loaded: int | None = None

    def before_run(self, runner: Runner) -> None:
        """Seed what is drawn up to the training, such as initial weights; all ranks alike."""
        seed_generators('run', runner.seed)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the seed of the train sampler."""
        checkpoint[CHECKPOINT_KEY] = getattr(runner.train_dataloader.sampler, 'seed', None)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep that seed until it is known whether a run is resumed."""
        self.loaded = checkpoint.get(CHECKPOINT_KEY)

    def before_train(self, runner: Runner) -> None:
        """Go on with the order of the run that is resumed, and seed what other hooks draw before the first step."""
        sampler = runner.train_dataloader.sampler
        if not isinstance(sampler, SeededInfiniteSampler):
            _warn_of_draws(runner)
        elif runner.iter > 0 and self.loaded is not None and self.loaded != sampler.seed:
            sampler.restart(self.loaded)
            loop = runner.train_loop
            # Earlier versions of mmengine draw the first batches as soon as the loop is built.
            loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)
        seed_generators('start', runner.seed, get_rank(), runner.iter)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the step draws."""
        seed_generators('step', runner.seed, get_rank(), runner.iter)


def _warn_of_draws(runner: Runner) -> None:
    dataset = runner.train_dataloader.dataset
    drawing = [type(one).__name__ for one in datasets_in(dataset) if isinstance(one, NeighbourPairs) or _views(one)]
    drawing += random_transforms(transforms_of(dataset))
    if drawing:
        runner.logger.warning(
            f'{", ".join(drawing)} draw from the streams of the workers that load the data, as the sampler is '
            f'{type(runner.train_dataloader.sampler).__name__}: another number of workers, or a resume, gives another '
            "run. Set train_dataloader.sampler.type='SeededInfiniteSampler' for draws that follow from the seed."
        )


def _views(dataset: Any) -> bool:
    return isinstance(dataset, CachedFeatures) and bool(dataset.views)
