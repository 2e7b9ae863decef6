"""Matching of clusters to classes, and metrics."""

from omh_mmseg.evaluation.metrics import UnsupervisedIoUMetric

__all__ = ['UnsupervisedIoUMetric']
