"""Matches a model's clusters to classes on a split of one's choice."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import is_main_process

from omh_mmseg.choices import SPLITS
from omh_mmseg.engine import launch
from omh_mmseg.engine.hooks.assignment_hook import find_assignment, store_assignment, unsupervised_metrics
from omh_mmseg.structures.assignment import write_assignment
from omh_mmseg.utils.config import split_dataset

REPORTING_HOOKS = ('ScoreReportHook', 'LabelFreeHook')


def fit_assignment(
    config: Config,
    checkpoint: str,
    out: str | os.PathLike[str],
    split: str = 'train',
    images: int | None = None,
    matching: str | None = None,
    save: str | os.PathLike[str] | None = None,
) -> dict[str, np.ndarray]:
    """Predict a split, match the clusters to its labels and write the result.

    Args:
        config: With a work directory; see `launch.load_config`. Not changed.
        checkpoint: Weights.
        out: JSON file, which the metric's ``assignment`` and the model's ``test_cfg.assignment`` read.
        split: ``'train'``, ``'val'`` or ``'test'``.
        images: Use only so many images, the first of the split.
        matching: Instead of the metric's own.
        save: Checkpoint to write with the assignment in it, and with the class names of the split.

    Returns:
        Class of each cluster, by field of the data sample.

    Raises:
        ValueError: Unknown split, no metric that matches clusters, or no labels in the split.
    """
    config = copy.deepcopy(config)
    dataset = split_dataset(config, split)
    if images is not None:
        if images < 1:
            raise ValueError(f'at least one image is needed; got images={images}')
        dataset['indices'] = images
    config.test_dataloader['dataset'] = dataset
    config.test_dataloader['sampler'] = dict(type='DefaultSampler', shuffle=False)
    config.test_evaluator = _evaluator(config, matching)
    config.load_from = checkpoint
    config.resume = False
    _leave_out_reports(config)
    runner = launch.build_runner(config)
    metrics = unsupervised_metrics(runner.test_loop.evaluator)
    assignment = find_assignment(runner.model)
    scores = runner.test()
    classes = {field: assigned for metric in metrics for field, assigned in metric.last_assignment.items()}
    if not classes:
        raise ValueError(f'the {split} split has no labels to match the clusters to; choose another one of {SPLITS}')
    if is_main_process():
        write_assignment(
            out, classes, classes=list(metrics[0].dataset_meta['classes']), split=split, images=images,
            checkpoint=checkpoint, scores=scores,
        )  # fmt: skip
        if save is not None and assignment is not None:
            assignment.update(classes)
            store_assignment(checkpoint, assignment, Path(save), metrics[0].dataset_meta)
    return classes


def _evaluator(config: Config, matching: str | None) -> dict[str, Any]:
    """The config's metric, matching and writing nothing else."""
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list) else [config.test_evaluator]
    for evaluator in evaluators:
        if str(evaluator['type']).rpartition('.')[2] == 'UnsupervisedIoUMetric':
            left_out = ('assignment', 'bootstrap', 'output_dir', 'format_only')
            kept = {key: value for key, value in evaluator.items() if key not in left_out}
            return kept if matching is None else {**kept, 'matching': matching}
    raise ValueError(
        f'test_evaluator has no UnsupervisedIoUMetric, only {", ".join(str(each["type"]) for each in evaluators)}'
    )


def _leave_out_reports(config: Config) -> None:
    """The tables would name the split of the test, which this is not; figures without labels match no clusters."""
    for name, hook in list(config.get('default_hooks', {}).items()):
        if hook and hook['type'] in REPORTING_HOOKS:
            del config.default_hooks[name]
    custom = config.get('custom_hooks') or []
    config.custom_hooks = [hook for hook in custom if hook['type'] not in REPORTING_HOOKS]
