"""Measures figures that need no labels after a validation or a test."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from mmengine.dist import all_reduce, get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.datasets.base import FileSegDataset
from omh_mmseg.engine.models import model_of
from omh_mmseg.models.prediction.label_free import LabelFreeMeter, measure_images
from omh_mmseg.models.prediction.measuring_predictor import MeasuringPredictor
from omh_mmseg.models.prediction.predicting_segmentor import PredictingSegmentor
from omh_mmseg.registry import DATASETS, HOOKS
from omh_mmseg.utils.checks import COUNT, ranges
from omh_mmseg.utils.dataset_configs import innermost_datasets
from omh_mmseg.utils.spread import evenly_spread

WHEN = ('no_labels', 'always', 'never')


@HOOKS.register_module()
class LabelFreeHook(Hook):
    """Adds the figures of docs/evaluation.md, Without labels, to the scores of a validation and of a test.

    They are ``label_free/<head>/<figure>`` in logs and tables. Some images of the split are measured, the same ones
    every time, each in three passes of the network, of which a prediction without labels in one process shares up to
    two; the training is not touched, nor are its random numbers.

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

    def before_val_epoch(self, runner: Runner) -> None:
        """Measure the validation split as it is predicted, where that is certain to be wanted."""
        self._begin(runner, runner.val_loop)

    def before_test_epoch(self, runner: Runner) -> None:
        """Measure the test split likewise."""
        self._begin(runner, runner.test_loop)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Measure the rest of the validation split."""
        self._end(runner, 'val', metrics)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Measure the rest of the test split."""
        self._end(runner, 'test', metrics)

    def _begin(self, runner: Runner, loop: Any) -> None:
        """Have a model in one process measured while it predicts images that have no labels."""
        model, dataset = model_of(runner), loop.dataloader.dataset
        _taken_out(model)  # of an evaluation that was cut off
        possible = isinstance(model, PredictingSegmentor) and isinstance(dataset, FileSegDataset)
        if self.when == 'never' or not possible or get_dist_info()[1] > 1:
            return
        # Figures are those of full precision.
        if getattr(loop, 'fp16', False) or next(model.parameters()).dtype in (torch.float16, torch.bfloat16):
            return
        if self.when == 'always' or not any('seg_map_path' in dataset.get_data_info(i) for i in range(len(dataset))):
            numbers = evenly_spread(len(dataset), self.images)
            wanted = {dataset.get_data_info(number)['img_path'] for number in numbers}
            if len(wanted) == len(numbers):
                model.predictor = MeasuringPredictor(model.predictor, LabelFreeMeter(model), wanted)

    def _end(self, runner: Runner, split: str, metrics: dict[str, float] | None) -> None:
        measuring = _taken_out(model_of(runner))
        # mmseg's --tta wraps the model.
        model = getattr(model_of(runner), 'module', model_of(runner))
        if self.when == 'never' or metrics is None or not hasattr(model, 'prediction_code'):
            return
        if metrics and self.when == 'no_labels':
            return
        meter = LabelFreeMeter(model) if measuring is None else measuring.meter
        if measuring is None or measuring.wanted:
            dataset = self._dataset(runner, split)
            if dataset is None:
                runner.logger.warning('figures without labels are not measured under test-time augmentation')
                return
            rank, world_size = get_dist_info()
            numbers = evenly_spread(len(dataset), self.images)[rank::world_size]
            if measuring is not None:
                numbers = [one for one in numbers if dataset.get_data_info(one)['img_path'] in measuring.wanted]
            measure_images(meter, dataset, numbers)
        state = meter.state()
        all_reduce(state)
        meter.use_state(state)
        metrics.update(meter.scores())

    def _dataset(self, runner: Runner, split: str) -> Any:
        """The images themselves, also where the loop reads cached features of them; None where there are views only."""
        if split not in self._datasets:
            config = deepcopy(runner.cfg[f'{split}_dataloader'].dataset)
            for inner in innermost_datasets(config).values():
                if any(step.get('type') == 'TestTimeAug' for step in inner.get('pipeline') or []):
                    if 'plain_pipeline' not in runner.cfg:
                        return None
                    inner['pipeline'] = runner.cfg.plain_pipeline
            self._datasets[split] = DATASETS.build(config)
        return self._datasets[split]


def _taken_out(model: Any) -> MeasuringPredictor | None:
    """The measuring predictor of a model, which predicts by its own again; None where it does."""
    measuring = getattr(model, 'predictor', None)
    if not isinstance(measuring, MeasuringPredictor):
        return None
    model.predictor = measuring.predictor
    return measuring
