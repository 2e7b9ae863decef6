"""Image files, arrays, tensors and Pillow images, read into 8-bit colours by one rule."""

from omh_mmseg.datasets.images.backend import ImageReaderBackend
from omh_mmseg.datasets.images.load_image import LoadImage
from omh_mmseg.datasets.images.reader import ImageReader

__all__ = ['ImageReader', 'ImageReaderBackend', 'LoadImage']
