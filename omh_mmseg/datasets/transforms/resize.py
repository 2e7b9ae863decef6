"""Resizes and crops that equal Pillow's bit by bit (docs/methods/data.md 5.6)."""

from __future__ import annotations

from abc import abstractmethod

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from omh_mmseg.registry import TRANSFORMS
from omh_mmseg.utils.checks import SIZE, ranges

INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'box', 'lanczos', 'hamming')
MAX_ASPECT = 25.0
"""Of longer to shorter side: a strip one pixel high would fill the memory when it is brought to the usual height."""


class _PillowResize(BaseTransform):
    """Resize image and labels with Pillow; the subclass decides on the size.

    The aspect is kept up to 25 : 1; longer strips are squeezed to it, which predictions undo as they are brought to the
    size of the image.
    """

    interpolation: str

    @abstractmethod
    def _target(self, height: float, width: float) -> tuple[int, int]:
        """New height and width."""

    def transform(self, results: dict) -> dict:
        """Resize ``img`` and every map of ``seg_fields``.

        Args:
            results: With ``img`` (H, W, 3) uint8.

        Returns:
            The same dict with ``img_shape``, ``scale`` (w, h), ``scale_factor`` (w, h) and ``keep_ratio`` set.
        """
        image = results['img']
        if image.dtype != np.uint8:
            raise ValueError(f'{type(self).__name__} takes uint8 images, got {image.dtype}; resize before converting')
        height, width = image.shape[:2]
        new_height, new_width = self._target(*_bounded(height, width))
        size = (new_width, new_height)
        results['img'] = mmcv.imresize(
            np.ascontiguousarray(image), size, interpolation=self.interpolation, backend='pillow'
        )
        for key in results.get('seg_fields', []):
            results[key] = mmcv.imresize(results[key], size, interpolation='nearest', backend='pillow')
        results['img_shape'] = (new_height, new_width)
        results['scale'] = size
        results['scale_factor'] = (new_width / width, new_height / height)
        results['keep_ratio'] = _bounded(height, width) == (height, width)
        return results


def _bounded(height: int, width: int) -> tuple[float, float]:
    """Height and width, the longer one cut to ``MAX_ASPECT`` times the shorter one."""
    longest = MAX_ASPECT * min(height, width)
    return (height, width) if max(height, width) <= longest else (min(height, longest), min(width, longest))


def _check_interpolation(interpolation: str) -> str:
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f'interpolation {interpolation!r} is unknown; choose one of {INTERPOLATIONS}')
    return interpolation


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2:
        raise ValueError(f'size must be one number or (height, width), got {size}')
    return int(pair[0]), int(pair[1])


@TRANSFORMS.register_module()
class ResizeShortSide(_PillowResize):
    """Resize so that the shorter side has a given length, as Pillow and torchvision do it.

    The longer side is ``int(size * long / short)``, truncated (docs/methods/data.md 5.6): 640x427 becomes 479x320.

    Args:
        size: Length of the shorter side in pixels.
        interpolation: Of the image; labels always use nearest. STEGO and its successors use nearest for both.
        divisor: If given, both sides are rounded to the nearest multiple of it (at least one), which changes the aspect
            ratio by at most ``divisor / 2`` pixels: for backbones that need a multiple of their patch.
    """

    @ranges(size=SIZE, divisor=SIZE)
    def __init__(self, size: int, interpolation: str = 'nearest', divisor: int | None = None) -> None:
        self.size, _ = _pair(size)
        self.interpolation = _check_interpolation(interpolation)
        self.divisor = divisor

    def _target(self, height: float, width: float) -> tuple[int, int]:
        longer = int(self.size * max(height, width) / min(height, width))
        sides = (self.size, longer) if height <= width else (longer, self.size)
        if self.divisor is None:
            return sides
        new_height, new_width = (max(1, round(side / self.divisor)) * self.divisor for side in sides)
        return new_height, new_width

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, interpolation={self.interpolation!r}, divisor={self.divisor})'
        )


@TRANSFORMS.register_module()
class ResizeToCover(_PillowResize):
    """The smallest resize with the aspect kept that covers a given size; a centre crop of that size then fits.

    Args:
        size: (height, width) to cover, or one number for a square.
        interpolation: Of the image; labels always use nearest.
    """

    @ranges(size=SIZE)
    def __init__(self, size: int | tuple[int, int], interpolation: str = 'bilinear') -> None:
        self.size = _pair(size)
        self.interpolation = _check_interpolation(interpolation)

    def _target(self, height: float, width: float) -> tuple[int, int]:
        factor = max(self.size[0] / height, self.size[1] / width)
        return max(self.size[0], int(height * factor)), max(self.size[1], int(width * factor))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size}, interpolation={self.interpolation!r})'


@TRANSFORMS.register_module()
class CentreCrop(BaseTransform):
    """Cut the centre out of image and labels, with torchvision's offset ``round((side - crop) / 2)``, half to even.

    ``results['crop_bbox']`` becomes (left, top, right, bottom) in pixels of the image before the crop, so that
    ``(crop + (left, top)) / scale_factor`` maps a position of the crop back to the loaded image.

    Args:
        size: (height, width), or one number for a square.
    """

    @ranges(size=SIZE)
    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = _pair(size)

    def transform(self, results: dict) -> dict:
        """Crop ``img`` and every map of ``seg_fields`` that has the size of the image.

        Raises:
            ValueError: The image is smaller than the crop, or a label has another size than the image.
        """
        height, width = results['img'].shape[:2]
        crop_height, crop_width = self.size
        if height < crop_height or width < crop_width:
            raise ValueError(
                f'{results.get("img_path")}: the image is {height}x{width} here, smaller than the crop '
                f'{crop_height}x{crop_width}; resize first (ResizeShortSide, ResizeToCover)'
            )
        top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
        rows, columns = slice(top, top + crop_height), slice(left, left + crop_width)
        for key in ('img', *results.get('seg_fields', [])):
            if results[key].shape[:2] != (height, width):
                raise ValueError(f'{key} is {results[key].shape[:2]}, the image {(height, width)}: load labels earlier')
            results[key] = np.ascontiguousarray(results[key][rows, columns])
        results['img_shape'] = (crop_height, crop_width)
        results['crop_bbox'] = (left, top, left + crop_width, top + crop_height)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size})'
