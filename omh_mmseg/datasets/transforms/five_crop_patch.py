"""The crop of one five-crop item."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from omh_mmseg.registry import TRANSFORMS


def five_crop_boxes(height: int, width: int, ratio: float) -> list[tuple[int, int, int, int]]:
    """The five boxes of an image (docs/methods/data.md 5.7).

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        ratio: Side of a crop relative to the image, in (0, 1].

    Returns:
        (left, top, right, bottom) of top-left, top-right, bottom-left, bottom-right and centre, each
        ``int(height * ratio)`` x ``int(width * ratio)``; the centre offset is rounded half to even.
    """
    crop_height, crop_width = int(height * ratio), int(width * ratio)
    corners = [
        (0, 0),
        (width - crop_width, 0),
        (0, height - crop_height),
        (width - crop_width, height - crop_height),
        (round((width - crop_width) / 2), round((height - crop_height) / 2)),
    ]
    return [(left, top, left + crop_width, top + crop_height) for left, top in corners]


@TRANSFORMS.register_module()
class FiveCropPatch(BaseTransform):
    """Cut the crop that the data set wrapper :class:`FiveCrop` asks for; place it right after the loading.

    From then on the crop is the image: ``ori_shape`` and ``img_shape`` are its size, ``patch_bbox`` is (left, top,
    right, bottom) in the file's pixels.

    Required keys: ``img``, ``crop_number`` (0..4) and ``crop_ratio``, both set by :class:`FiveCrop`. Items with
    ``crop_stored`` were cut beforehand and stay as they are.
    """

    def transform(self, results: dict) -> dict:
        """Crop ``img`` and every map of ``seg_fields``.

        Raises:
            ValueError: The item does not come from :class:`FiveCrop`, or the image is too small to be cut.
        """
        if results.get('crop_stored'):
            return results
        if 'crop_number' not in results:
            raise ValueError(
                "FiveCropPatch needs the data set wrapper: dict(type='FiveCrop', ratio=0.5, dataset=dict(...)), or "
                'take FiveCropPatch out of the pipeline'
            )
        height, width = results['img'].shape[:2]
        box = five_crop_boxes(height, width, results['crop_ratio'])[results['crop_number']]
        left, top, right, bottom = box
        if right <= left or bottom <= top:
            raise ValueError(f'{results.get("img_path")}: {height}x{width} is too small for five crops')
        for key in ('img', *results.get('seg_fields', [])):
            results[key] = np.ascontiguousarray(results[key][top:bottom, left:right])
        results['ori_shape'] = results['img_shape'] = (bottom - top, right - left)
        results['patch_bbox'] = box
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
