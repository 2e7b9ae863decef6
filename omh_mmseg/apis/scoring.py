"""Scores of a model outside a runner: no hook acts, no checkpoint changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from rich.progress import track
from torch.utils.data import DataLoader

from omh_mmseg.engine.hooks.assignment_hook import unsupervised_metrics


def score_model(model: Any, loader: DataLoader, evaluator: Evaluator, title: str) -> dict[str, float]:
    """Predict every image of a loader and score the predictions.

    Args:
        model: A segmentor; it is left in the mode that it is in.
        loader: Labelled images.
        evaluator: With the ``dataset_meta`` of the data set.
        title: Of the progress bar.

    Returns:
        Metric -> score.
    """
    for metric in unsupervised_metrics(evaluator):
        metric.use_cluster_sizes(model.assignment.sizes)
    dataset: Any = loader.dataset
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), without_tables():
            for batch in track(loader, title):
                evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
            scores = evaluator.evaluate(len(dataset))
    finally:
        model.train(training)
    return {name: float(value) for name, value in scores.items() if isinstance(value, (int, float))}


@contextmanager
def without_tables() -> Iterator[None]:
    """Keep the metric's tables out of the log; warnings stay."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
