"""Refuses to score a model with weights of another one."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.text import first_few

PREDICTING = ('decode_head.', 'cluster_probe.', 'omh_head.centres.')
"""Beginnings of the weights without which nothing can be predicted; converted checkpoints lack others."""


@HOOKS.register_module()
class CheckpointShapeHook(Hook):
    """Ends a test whose checkpoint has weights of other shapes than the model, or lacks those that it predicts by.

    mmengine prints such weights, leaves them as they were initialised and goes on: the scores would be those of random
    weights. Trainings may start from such a checkpoint, e.g. for another number of classes. The backbone is left out,
    as position embeddings are resized while they are loaded.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare.

        Raises:
            ValueError: Shapes differ or weights are missing, in a test.
        """
        if isinstance(runner._train_loop, BaseLoop):
            return
        model = runner.model
        while hasattr(model, 'module'):
            model = model.module
        weights = model.state_dict()
        given = {key.removeprefix('module.'): value for key, value in checkpoint.get('state_dict', checkpoint).items()}
        differing = [
            key
            for key, value in given.items()
            if key in weights and not key.startswith('backbone.') and weights[key].shape != value.shape
        ]
        if differing:
            key = differing[0]
            raise ValueError(
                f'{runner._load_from} is of another model than the config: {key} is {tuple(given[key].shape)} there '
                f'and {tuple(weights[key].shape)} here ({len(differing)} weights differ in shape). Use the config of '
                'its run.'
            )
        absent = [key for key in weights if key.startswith(PREDICTING) and key not in given]
        if absent:
            raise ValueError(
                f"{runner._load_from} lacks {len(absent)} weights of the config's model: {first_few(absent)}. Use the "
                'config of its run.'
            )
