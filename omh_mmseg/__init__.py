"""Unsupervised semantic segmentation with optimally matched hierarchies, for MMSegmentation."""

from omh_mmseg import compat
from omh_mmseg.version import __version__

compat.apply()

from omh_mmseg import datasets, engine, evaluation, models, visualization  # noqa: E402

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models', 'visualization']
