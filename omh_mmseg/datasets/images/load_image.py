"""The first step of every pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import mmcv.transforms
import numpy as np
from mmcv.transforms import BaseTransform

from omh_mmseg.choices import MAX_PIXELS
from omh_mmseg.datasets.images.depth import Range
from omh_mmseg.datasets.images.reader import ImageReader
from omh_mmseg.registry import TRANSFORMS
from omh_mmseg.utils.checks import COUNT, ranges


@TRANSFORMS.register_own_module(['LoadImageFromFile', 'LoadImageFromNDArray', 'InferencerLoader'])
@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Load a picture of any kind, by `ImageReader`.

    mmseg's ``inference_model`` and ``MMSegInferencer`` look for ``LoadImageFromFile`` in a pipeline, and put
    ``LoadImageFromNDArray`` or ``InferencerLoader`` in its place. In this library's scope all three are this class:
    ``dict(type='LoadImageFromFile', _scope_='omh_mmseg')``.

    Required keys: ``img_path``, or ``img``, an array, a tensor or a Pillow image. Used: ``turn_images``, of the data
    set. Added keys: ``img`` (uint8, (H, W, 3), BGR), ``img_shape`` and ``ori_shape`` (H, W), and ``exif_orientation``.
    A picture or path in place of the dict will do.

    Args:
        value_range: Values of black and white, for values of more than 8 bits; see `ImageReader`.
        bands: Positions, from 0, of the bands shown as red, green and blue, or of the one shown in grey.
        max_pixels: Larger pictures are refused.
    """

    @ranges(bands='[0, 65535]', max_pixels=COUNT)
    def __init__(
        self, value_range: Range | None = None, bands: int | Sequence[int] | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.reader = ImageReader(value_range, bands, max_pixels)

    def transform(self, results: Any) -> dict:
        """Add the pixels; see `ImageReader.read` for the errors."""
        if not isinstance(results, dict):
            results = dict(img_path=results)
        picture = results['img'] if 'img' in results else results['img_path']
        if not isinstance(picture, (str, os.PathLike)):
            results['img_path'] = None
        pixels = self.reader.read(picture, results.get('turn_images', True))
        results['img'] = np.ascontiguousarray(pixels.rgb[..., ::-1])
        results['img_shape'] = results['ori_shape'] = pixels.rgb.shape[:2]
        results['exif_orientation'] = pixels.orientation
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.reader})'


def reader_of(transforms: Sequence[Any]) -> ImageReader | None:
    """What the first `LoadImage` among transforms reads with; None without one."""
    return next((transform.reader for transform in transforms if isinstance(transform, LoadImage)), None)


def with_own_loader(transforms: Sequence[Any]) -> list[Any]:
    """Transforms in which `LoadImage` stands for mmcv's ``LoadImageFromFile``, which clips values of over 8 bits.

    Of ordinary 8-bit files both give the same, up to the rounding of JPEG decoders.
    """
    return [LoadImage() if _is_mmcvs(transform) else transform for transform in transforms]


def _is_mmcvs(transform: Any) -> bool:
    return type(transform) is mmcv.transforms.LoadImageFromFile and not transform.to_float32
