"""Samples with errors, and what the metric must say of them."""

from __future__ import annotations

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from omh_mmseg.evaluation import UnsupervisedIoUMetric
from omh_mmseg.evaluation.scores import confusion_matrix, hungarian_assignment, scores_from_confusion

CLASSES = ('sky', 'road', 'tree', 'car')
PERMUTATION = np.array([2, 0, 3, 1])  # cluster of each class


def make_sample(
    index: int, labels: np.ndarray | None = None, labelled: bool = True, fields: tuple[str, ...] = ('pred_sem_seg',)
) -> SegDataSample:
    """A 6x8 sample whose predictions are the permuted labels with some errors."""
    rng = np.random.default_rng(index)
    if labels is None:
        labels = rng.integers(0, len(CLASSES), (6, 8))
    sample = SegDataSample(metainfo=dict(img_path=f'photos/{index:03d}.jpg', seg_map_path=f'labels/{index:03d}.png'))
    if labelled:
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
    wrong = rng.random(labels.shape) < 0.2
    for field in fields:
        correct = labels if field == 'pred_linear' else PERMUTATION[labels % len(CLASSES)]
        pred = np.where(wrong, rng.integers(0, len(CLASSES), labels.shape), correct)
        setattr(sample, field, PixelData(data=torch.from_numpy(pred)[None]))
    return sample


def make_metric(**arguments: object) -> UnsupervisedIoUMetric:
    metric = UnsupervisedIoUMetric(**arguments)
    metric.dataset_meta = dict(classes=CLASSES)
    return metric


def run(metric: UnsupervisedIoUMetric, samples: list[SegDataSample]) -> dict[str, float]:
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = metric.dataset_meta
    for start in range(0, len(samples), 2):
        evaluator.process(samples[start : start + 2])
    return evaluator.evaluate(len(samples))


def expected(samples: list[SegDataSample], field: str, matched: bool = True) -> tuple[float, float]:
    pred = torch.cat([getattr(sample, field).data.flatten() for sample in samples])
    target = torch.cat([sample.gt_sem_seg.data.flatten() for sample in samples])
    counts = confusion_matrix(pred, target, len(CLASSES), len(CLASSES))
    scores = scores_from_confusion(counts, hungarian_assignment(counts) if matched else None)
    return scores.mean_iou, scores.pixel_accuracy
