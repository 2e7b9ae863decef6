"""Gives a training the neighbours that its own backbone chooses."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.datasets.fingerprint import DROPOUT_PART
from omh_mmseg.datasets.neighbours.pairs import pairs_of
from omh_mmseg.engine.hooks.feature_cache_hook import reload_loop
from omh_mmseg.engine.models import model_of
from omh_mmseg.preparation.neighbours import complete_pairs
from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.checks import ranges
from omh_mmseg.utils.generators import seeded


@HOOKS.register_module(name=['NeighbourIndexHook', 'NeighbourIndexCheckHook'])
class NeighbourIndexHook(Hook):
    """Before a training on `NeighbourPairs`, hands them the index of the model, and makes it on first use.

    An index belongs to the images and pipeline, and to the backbone, its weights and the normalisation; one of another
    model is refused. Of several processes, ranks or runs, one makes it and the others wait. The run draws the same
    random numbers whether it made the index or found it. Channel dropout of the index's features is a choice of whoever
    made it: it is logged, not refused. Without a `NeighbourPairs` data set the hook does nothing.

    Args:
        build: Make an index that is absent. False stops the run there; the message holds the command that makes it.
    """

    # Before the feature cache takes the place of the images.
    priority = 'HIGHEST'

    @ranges()
    def __init__(self, build: bool = True) -> None:
        self.build = build

    def before_train(self, runner: Runner) -> None:
        """Complete the data set once weights and checkpoint are loaded.

        Raises:
            FileNotFoundError: See `complete_pairs`.
            ValueError: Likewise.
            OSError: Likewise.
        """
        dataset = runner.train_dataloader.dataset
        found = pairs_of(dataset)
        if not found:
            return
        model = model_of(runner)
        for pairs in found:
            with seeded('neighbours'):
                complete_pairs(pairs, runner.cfg, model.backbone, self.build)
            dropout = pairs.fingerprint.get(DROPOUT_PART)
            if dropout:
                runner.logger.info(
                    f'the neighbour index {pairs.index_path} was made with channel dropout {dropout["probability"]} of '
                    f'the features, seed {dropout["seed"]}'
                )
        iterator = getattr(runner.train_loop, 'dataloader_iterator', None)
        # Earlier versions of mmengine start the workers, with the data set as it was, as soon as the loop is built.
        if getattr(iterator, '_iterator', None) is not None:
            reload_loop(runner, runner.train_loop, 'train', dataset)
