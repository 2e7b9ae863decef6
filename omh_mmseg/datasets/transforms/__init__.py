"""Transforms of data items."""

from omh_mmseg.datasets.transforms.five_crop_patch import FiveCropPatch
from omh_mmseg.datasets.transforms.loading import LoadOptionalAnnotations
from omh_mmseg.datasets.transforms.resize import CentreCrop, ResizeShortSide, ResizeToCover

__all__ = ['CentreCrop', 'FiveCropPatch', 'LoadOptionalAnnotations', 'ResizeShortSide', 'ResizeToCover']
