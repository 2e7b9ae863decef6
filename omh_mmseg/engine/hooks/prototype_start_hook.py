"""Gives prototypes on frozen features their start before the training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from mmengine.dist import get_dist_info, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.progress import track
from torch import Tensor

from omh_mmseg.datasets.samplers import SeededIndex, seeded_loader
from omh_mmseg.engine.models import model_of
from omh_mmseg.models.decode_heads.prototype_start import cosine_k_means, principal_directions
from omh_mmseg.registry import HOOKS
from omh_mmseg.structures.frozen_inputs import single_view
from omh_mmseg.utils.checks import COUNT, POSITIVE, STEPS, ranges
from omh_mmseg.utils.generators import generator_of

PURPOSE = 'start of the prototypes'


@HOOKS.register_module()
class PrototypeStartHook(Hook):
    """Starts the prototypes of `MomentumPrototypes` before the first step of a run that has none.

    They begin at the first principal directions of the code and go on by k-means by cosine. A run that is resumed, or
    starts from weights with prototypes (``load_from``), is left alone. Which images a batch holds follows from the
    run's seed and the epoch; the ranks of a distributed run share each batch's work, so that a batch is theirs
    together.

    Args:
        batches: For the principal directions, of all ranks together; rounded up to as many of each rank.
        epochs: Of k-means by cosine; 0 leaves it out.
        lr: Of its Adam.

    Raises:
        TypeError: Before training, if the model has no such prototypes.
        ValueError: Before training, if the train set is smaller than a batch, the code has fewer channels than there
            are prototypes, or the code comes from a projection that nobody has trained.

    Source: docs/methods/primaps.md 4.
    """

    priority = 'ABOVE_NORMAL'

    @ranges(batches=COUNT, epochs=STEPS, lr=POSITIVE)
    def __init__(self, batches: int = 93, epochs: int = 2, lr: float = 5e-3) -> None:
        self.batches, self.epochs, self.lr = batches, epochs, lr

    def before_train(self, runner: Runner) -> None:
        """Start the prototypes, unless they are."""
        model = model_of(runner)
        probe = model.cluster_probe
        if not hasattr(probe, 'started'):
            raise TypeError(f'PrototypeStartHook starts MomentumPrototypes, not a {type(probe).__name__}: drop it.')
        if runner.iter > 0 or bool(probe.started):
            return
        clusters, channels = probe.centres.shape
        if clusters > channels:
            raise ValueError(f'{clusters} prototypes cannot begin at as many principal directions of {channels}.')
        if any(True for _ in model.decode_head.parameters()) and not runner._load_from:
            raise ValueError(
                f'the {type(model.decode_head).__name__} is frozen here and nobody has trained it: name the checkpoint '
                "of the host that did in load_from, or set model.decode_head=dict(type='IdentityHead')."
            )
        loader, ranks = runner.train_dataloader, get_dist_info()[1]
        if len(loader.dataset) < (loader.batch_size or 1) * ranks:
            raise ValueError(f'the train set of {len(loader.dataset)} images is smaller than a batch of all ranks.')
        share = -(-self.batches // ranks)
        runner.logger.info(f'{PURPOSE}: principal directions, then {self.epochs} epochs of k-means over the train set')
        directions = principal_directions(islice(self._codes(runner, model, 0), share), clusters)
        epochs = (code for epoch in range(1, self.epochs + 1) for code in self._codes(runner, model, epoch))
        probe.start(cosine_k_means(directions.to(probe.centres), epochs, self.lr))

    @torch.no_grad()
    def _codes(self, runner: Runner, model: Any, epoch: int) -> Iterator[Tensor]:
        """Codes (B, C, h, w) of one pass over the train set in an order of its own, this rank's part of each batch."""
        loader = runner.train_dataloader
        rank, ranks = get_dist_info()
        seed, size = runner.seed or 0, loader.batch_size or 1
        order = torch.randperm(len(loader.dataset), generator=generator_of(PURPOSE, seed, epoch)).tolist()
        whole = order[: len(order) // (size * ranks) * size * ranks][rank::ranks]
        indices = [SeededIndex(item, (PURPOSE, seed, epoch, item)) for item in whole]
        reader = seeded_loader(loader, loader.dataset, indices, generator=generator_of(PURPOSE, seed, epoch))
        for batch in track(reader, PURPOSE, transient=True, disable=not is_main_process()):
            with runner.optim_wrapper.optim_context(runner.model):
                inputs = model.data_preprocessor(batch, True)['inputs']
                yield model.encode(single_view(inputs, type(model).__name__))
