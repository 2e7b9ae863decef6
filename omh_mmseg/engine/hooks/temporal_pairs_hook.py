"""Gives the temporal term of a model its pairs of frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.datasets.video.pairs import TemporalPairs
from omh_mmseg.datasets.wrapper import datasets_in
from omh_mmseg.engine.hooks.feature_cache_hook import reload_loop
from omh_mmseg.engine.models import model_of
from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.checks import COUNT, ranges
from omh_mmseg.utils.generators import seeded


@HOOKS.register_module()
class TemporalPairsHook(Hook):
    """Before a training with ``model.temporal``, puts `TemporalPairs` around its data set.

    It does nothing without the term, and where the config has the pairs already.

    Args:
        gap: Frames between the two of a pair.
        flow: Config of an estimator, see `FrameFlow`.

    Raises:
        ValueError: Before a training, if options would reach nothing; see `TemporalPairs` for the others.
    """

    # Before the feature cache, which goes inside.
    priority = 'HIGHEST'

    @ranges(gap=COUNT)
    def __init__(self, gap: int = 1, flow: Mapping[str, Any] | None = None) -> None:
        self.gap, self.flow = gap, flow

    def before_train(self, runner: Runner) -> None:
        """Wrap the data set of the training."""
        dataset = runner.train_dataloader.dataset
        given = [one for one in datasets_in(dataset) if isinstance(one, TemporalPairs)]
        if getattr(model_of(runner), 'temporal', None) is None or given:
            if self.gap != 1 or self.flow is not None:
                why = 'the data set is of TemporalPairs already' if given else 'the model has no temporal term'
                raise ValueError(
                    f'default_hooks.temporal_pairs.gap={self.gap} and flow={self.flow} would reach nothing: {why}. '
                    "Leave them out, or set model.temporal=dict(type='TemporalConsistencyLoss')"
                )
            return
        with seeded('temporal pairs'):
            paired = TemporalPairs(dataset, self.gap, flow=self.flow)
        runner.logger.info(f'frames of {len(paired)} items are paired, by the flow {paired.frame_flow}')
        reload_loop(runner, runner.train_loop, 'train', paired)
