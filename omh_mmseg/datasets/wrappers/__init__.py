"""Wrappers around data sets."""

from omh_mmseg.datasets.wrappers.base import DatasetWrapper
from omh_mmseg.datasets.wrappers.five_crop import FiveCrop
from omh_mmseg.datasets.wrappers.neighbour_pairs import NeighbourPairs, Views

__all__ = ['DatasetWrapper', 'FiveCrop', 'NeighbourPairs', 'Views']
