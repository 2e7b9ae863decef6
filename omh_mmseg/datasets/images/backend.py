"""The reader for what reads image files by mmengine and decodes them itself, as mmseg's hooks do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.fileio import BaseStorageBackend, register_backend

from omh_mmseg.choices import MAX_PIXELS
from omh_mmseg.datasets.images.depth import Range
from omh_mmseg.datasets.images.reader import ImageReader


@register_backend('image_reader')
class ImageReaderBackend(BaseStorageBackend):
    """Gives any image that `ImageReader` reads as an uncompressed 8-bit BMP.

    ``backend_args=dict(backend='image_reader')`` in ``SegVisualizationHook``, so that it draws on the pixels that were
    segmented.

    Args:
        value_range: See `ImageReader`.
        bands: Likewise.
        max_pixels: Likewise.
        turned: Whether photos are turned as their EXIF tag says; as the data set's ``turn_images``.
    """

    def __init__(
        self,
        value_range: Range | None = None,
        bands: int | Sequence[int] | None = None,
        max_pixels: int = MAX_PIXELS,
        turned: bool = True,
    ) -> None:
        self.reader = ImageReader(value_range, bands, max_pixels)
        self.turned = turned

    def get(self, filepath: str | Path) -> bytes:
        """The picture as the bytes of a BMP."""
        return self.reader.as_bmp(filepath, self.turned)

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """The file as text."""
        return Path(filepath).read_text(encoding=encoding)
