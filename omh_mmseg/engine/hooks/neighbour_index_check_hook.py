"""Refuse to train with neighbours that another backbone has chosen."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from omh_mmseg.datasets.fingerprint import DROPOUT_PART, MODEL_PARTS, compare_fingerprints, model_fingerprint
from omh_mmseg.datasets.neighbours.index import command_to_remake
from omh_mmseg.datasets.neighbours.pairs import NeighbourPairs
from omh_mmseg.registry import HOOKS


@HOOKS.register_module()
class NeighbourIndexCheckHook(Hook):
    """Compare the neighbour index with the model's backbone, its weights and the normalisation before the training.

    The data set checks its own part (images, pipeline) when it is built; the backbone is known only here. Channel
    dropout of the index's features is a choice of whoever made it: it is logged, not refused. Without a
    ``NeighbourPairs`` data set the hook does nothing.

    Args:
        check_weights: Compare the weights, too. Off only for random weights, which differ in every process.
    """

    priority = 'VERY_HIGH'

    def __init__(self, check_weights: bool = True) -> None:
        self.parts = tuple(part for part in MODEL_PARTS if check_weights or part != 'weights')

    def before_train(self, runner: Runner) -> None:
        """Check once, after weights and checkpoint are loaded.

        Raises:
            ValueError: The index was made with another backbone; the message holds the command that makes it anew.
        """
        pairs = runner.train_dataloader.dataset
        while pairs is not None and not isinstance(pairs, NeighbourPairs):
            pairs = getattr(pairs, 'dataset', None)
        if pairs is None:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        cfg = runner.cfg.model
        preprocessor = cfg.get('data_preprocessor') or runner.cfg.get('data_preprocessor') or {}
        current = model_fingerprint(model.backbone, cfg.backbone, preprocessor)
        differences = compare_fingerprints(pairs.fingerprint, current, self.parts)
        if differences:
            listed = '\n  '.join(differences)
            raise ValueError(
                f'the neighbour index {pairs.index_path} was made with another backbone:\n  {listed}\n'
                f'Make it anew with\n    {command_to_remake(pairs.fingerprint, runner.cfg.filename)}\n'
                'or set another `index` path in the config'
            )
        dropout = pairs.fingerprint.get(DROPOUT_PART)
        if dropout:
            runner.logger.info(
                f'the neighbour index {pairs.index_path} was made with channel dropout {dropout["probability"]} of the '
                f'features, seed {dropout["seed"]}'
            )
