"""Measures figures that need no labels after a validation or a test."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from mmengine.dist import all_reduce, get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.engine.models import model_of
from omh_mmseg.models.prediction.label_free import LabelFreeMeter, measure_images
from omh_mmseg.registry import DATASETS, HOOKS
from omh_mmseg.utils.checks import COUNT, ranges
from omh_mmseg.utils.dataset_configs import innermost_datasets
from omh_mmseg.utils.spread import evenly_spread

WHEN = ('no_labels', 'always', 'never')


@HOOKS.register_module()
class LabelFreeHook(Hook):
    """Adds the figures of docs/evaluation.md, Without labels, to the scores of a validation and of a test.

    They are ``label_free/<head>/<figure>`` in logs and tables. Some images of the split are measured, the same ones
    every time, each in three passes of the network; the training is not touched, nor are its random numbers.

    Args:
        when: ``'no_labels'`` measures where the metrics gave no scores, ``'always'`` also beside them, ``'never'``.
        images: Measured at most so many, spread evenly over the split and shared among the processes.
    """

    # Before the hooks that take the scores from the same dictionary to logs, checkpoints and tables.
    priority = 'HIGHEST'

    @ranges(images=COUNT)
    def __init__(self, when: str = 'no_labels', images: int = 100) -> None:
        if when not in WHEN:
            raise ValueError(f'LabelFreeHook: when must be one of {WHEN}; got {when!r}')
        self.when = when
        self.images = images
        self._datasets: dict[str, Any] = {}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Measure the validation split."""
        self._add(runner, 'val', metrics)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Measure the test split."""
        self._add(runner, 'test', metrics)

    def _add(self, runner: Runner, split: str, metrics: dict[str, float] | None) -> None:
        # mmseg's --tta wraps the model.
        model = getattr(model_of(runner), 'module', model_of(runner))
        if self.when == 'never' or metrics is None or not hasattr(model, 'prediction_code'):
            return
        if metrics and self.when == 'no_labels':
            return
        if split not in self._datasets:
            # The images themselves, also where the loop reads cached features of them.
            config = deepcopy(runner.cfg[f'{split}_dataloader'].dataset)
            for inner in innermost_datasets(config).values():
                if any(step.get('type') == 'TestTimeAug' for step in inner.get('pipeline') or []):
                    if 'plain_pipeline' not in runner.cfg:
                        runner.logger.warning('figures without labels are not measured under test-time augmentation')
                        return
                    inner['pipeline'] = runner.cfg.plain_pipeline
            self._datasets[split] = DATASETS.build(config)
        dataset, (rank, world_size) = self._datasets[split], get_dist_info()
        meter = LabelFreeMeter(model)
        measure_images(meter, dataset, evenly_spread(len(dataset), self.images)[rank::world_size])
        state = meter.state()
        all_reduce(state)
        meter.use_state(state)
        metrics.update(meter.scores())
