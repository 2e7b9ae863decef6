"""Metrics, one per file."""

from omh_mmseg.evaluation.metrics.unsupervised_iou_metric import UnsupervisedIoUMetric

__all__ = ['UnsupervisedIoUMetric']
