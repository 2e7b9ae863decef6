"""Fills HP's reference pools before training and renews them on schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.progress import track
from torch.utils.data import DataLoader

from omh_mmseg.datasets.samplers import SeededIndex, seeded_loader
from omh_mmseg.engine.models import model_of
from omh_mmseg.models.segmentors import HiddenPositives
from omh_mmseg.models.segmentors.hidden_positives import POOLS
from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.checks import COUNT, ranges

CHECKPOINT_KEY = 'reference_pools'


@HOOKS.register_module()
class ReferencePoolHook(Hook):
    """Fills both reference pools of `HiddenPositives` before training, and renews the task-specific one.

    A pool takes one random patch of each of ``pool_size`` random images of the train set, in train mode, so that the
    dropouts act. Which images, and what their pipeline draws, is decided by the run's seed, the rank and the step
    alone. The pools are buffers: a resumed run finds them in its checkpoint and fills nothing anew. Each rank of a
    distributed run has pools of its own; the checkpoint holds those of all ranks, and a run resumed on another number
    of ranks starts with those of rank 0 on all of them.

    The task-specific pool is renewed before step i of an epoch where ``i mod renew_interval == 0`` and i is not 0, so
    that an epoch begins with the pool of the one before it (docs/methods/hp.md 8.9). An epoch is as many steps as
    batches of all ranks together fit into the train set.

    It also sets the model's ``total_iterations``, where that is None, to the steps of the training, and counts them
    from 0 where a new run starts from the weights of another, so that the schedule of lambda starts anew.

    Args:
        renew_interval: Steps of an epoch between two renewals, at least 1.
        batch_size: Images per forward pass; None for the train loader's.
        num_workers: Processes that load them; None for the train loader's.
        epoch_length: Steps of an epoch; None to count them.

    Raises:
        ValueError: If a number is below 1, or, before training, the train set has fewer images than a pool has rows.
        TypeError: Before training, if the model is not `HiddenPositives`.

    Source: docs/methods/hp.md 3B.4.
    """

    priority = 'ABOVE_NORMAL'

    @ranges(renew_interval=COUNT, batch_size='[1, 65536]', num_workers='[0, 1024]', epoch_length=COUNT)
    def __init__(
        self,
        renew_interval: int,
        batch_size: int | None = None,
        num_workers: int | None = None,
        epoch_length: int | None = None,
    ) -> None:
        self.renew_interval = renew_interval
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.epoch_length = epoch_length
        self.pools_of_ranks: dict[str, torch.Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        """Fill the pools of a new run; take the stored ones of this rank where a run is resumed."""
        model = _host(runner)
        dataset = runner.train_dataloader.dataset
        size = len(model.agnostic_pool)
        if len(dataset) < size:
            raise ValueError(
                f'A reference pool of {size} rows takes one patch from each of as many images, and the train set has '
                f'{len(dataset)}. Set model.pool_size to at most {len(dataset)}.'
            )
        if model.total_iterations is None:
            model.total_iterations = runner.max_iters
        if self.epoch_length is None:
            self.epoch_length = max(1, len(dataset) // (runner.train_dataloader.batch_size * get_world_size()))
        if runner.iter > 0 and model.pools_are_filled():
            self._take_stored(runner, model)
            return
        if runner.iter == 0:
            model.begin_run()
        model.synchronise_average()
        self._fill(runner, POOLS)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Renew the task-specific pool where it is due."""
        step = runner.iter % (self.epoch_length or 1)
        if step != 0 and step % self.renew_interval == 0:
            self._fill(runner, POOLS[1:])

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the pools of the other ranks."""
        if get_world_size() > 1:
            checkpoint[CHECKPOINT_KEY] = dict(self.pools_of_ranks)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the pools of the ranks until it is known whether a run is resumed."""
        self.pools_of_ranks = dict(checkpoint.get(CHECKPOINT_KEY, {}))

    def _take_stored(self, runner: Runner, model: HiddenPositives) -> None:
        world = get_world_size()
        counts = {len(pools) for pools in self.pools_of_ranks.values()} or {1}
        if counts != {world}:
            runner.logger.warning(
                f'The checkpoint holds the reference pools of {min(counts)} ranks and this run has {world}: all start '
                'with those of rank 0.'
            )
            self._gather(model, POOLS)
        elif world > 1:
            for name, pools in self.pools_of_ranks.items():
                getattr(model, name).copy_(pools[get_rank()])

    def _fill(self, runner: Runner, names: Sequence[str]) -> None:
        model = _host(runner)
        model.train()
        vectors: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        loader = self._loader(runner, len(model.agnostic_pool))
        for batch in track(loader, 'filling the pools', transient=True, disable=not is_main_process()):
            with runner.optim_wrapper.optim_context(runner.model):
                inputs = model.data_preprocessor(batch, True)['inputs']
                for name, rows in model.pool_vectors(inputs, names).items():
                    vectors[name].append(rows)
        for name, chunks in vectors.items():
            getattr(model, name).copy_(torch.cat(chunks))
        self._gather(model, names)

    def _loader(self, runner: Runner, images: int) -> DataLoader:
        """Random images of the train set, each once; shuffled by a generator that nothing else uses."""
        loader = runner.train_dataloader
        words = np.random.SeedSequence([runner.seed or 0, get_rank(), runner.iter]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
        chosen = torch.randperm(len(loader.dataset), generator=generator)[:images].tolist()
        key = 'pool', runner.seed or 0, get_rank(), runner.iter
        indices = [SeededIndex(item, (*key, place)) for place, item in enumerate(chosen)]
        return seeded_loader(loader, loader.dataset, indices, self.batch_size, self.num_workers, generator)

    def _gather(self, model: HiddenPositives, names: Sequence[str]) -> None:
        if get_world_size() > 1:
            for name in names:
                self.pools_of_ranks[name] = torch.stack(all_gather(getattr(model, name))).cpu()


def _host(runner: Runner) -> HiddenPositives:
    model = model_of(runner)
    if not isinstance(model, HiddenPositives):
        raise TypeError(
            f'ReferencePoolHook fills the pools of HiddenPositives and the model is {type(model).__name__}. '
            'Remove the hook from custom_hooks.'
        )
    return model
