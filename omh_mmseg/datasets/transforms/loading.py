"""Load labels where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from omh_mmseg.datasets.base import LabelFileError
from omh_mmseg.datasets.images.orientation import label_like_image, orientation_hint
from omh_mmseg.datasets.label_files import by_colour, check_palette, class_numbers, classes_in_colour, open_label_of
from omh_mmseg.datasets.mat_files import LABEL_KEY, SUFFIX, read_mat
from omh_mmseg.registry import TRANSFORMS
from omh_mmseg.structures.labels import IGNORED_LABEL


class LabelValueError(ValueError):
    """A label that holds values which stand for no class."""


def read_label(results: Mapping[str, Any]) -> np.ndarray:
    """Read, check and map the label of one item.

    Args:
        results: An item with ``seg_map_path``, a picture or a ``.mat`` with the array ``gt``; ``ori_shape`` (H, W) is
            compared where known, after the label was turned like the image, see `label_like_image`; ``label_map`` (raw
            value to class) applied where present, else values must lie below ``num_classes`` where known.
            ``label_colours`` (class by colour) and ``label_reading`` say which pictures are read by colour instead,
            ``label_palette`` (colour by number) what all palettes must agree with.

    Returns:
        uint8 array (H, W) of classes; 255 is ignored.

    Raises:
        LabelFileError: The file is missing, truncated or not an image.
        ValueError: A format that changes values, colours without a known class, transparent pixels, another size than
            the image, or a ``.mat`` without that array.
        LabelValueError: A value outside the accepted set.
    """
    path = results['seg_map_path']
    if str(path).endswith(SUFFIX):
        try:
            return _to_classes(_checked(read_mat(path, LABEL_KEY), results), results)
        except OSError as error:
            raise LabelFileError(f'{path}: the label cannot be read ({type(error).__name__}: {error})') from error
    image = open_label_of(results)
    if by_colour(image, results):
        return _checked(classes_in_colour(image, results), results).astype(np.uint8)
    label = _checked(class_numbers(image, path), results)
    check_palette(image, results)
    return _to_classes(label, results)


def class_of_number(number: int, results: Mapping[str, Any]) -> int | None:
    """The class of a number in a label, by the item's settings; None where it stands for none."""
    try:
        return int(_to_classes(np.array([[number]]), results)[0, 0])
    except LabelValueError:
        return None


def _checked(label: np.ndarray, results: Mapping[str, Any]) -> np.ndarray:
    """The label as int64, if it has whole numbers, one per pixel of the image."""
    path = results['seg_map_path']
    if label.ndim != 2:
        raise ValueError(f'{path}: a label must have one channel, this one has the shape {label.shape}')
    if label.dtype.kind not in 'biu':
        raise ValueError(f'{path}: a label must hold whole numbers, this one holds {label.dtype}')
    label = label_like_image(label, results)
    expected = results.get('ori_shape')
    if expected is not None and label.shape != tuple(expected[:2]):
        raise ValueError(
            f'{path}: the label is {label.shape[0]}x{label.shape[1]} (height x width), but the image '
            f'{results.get("img_path")} is {expected[0]}x{expected[1]}'
            + orientation_hint(results, label.shape)
        )
    return label.astype(np.int64)


def _to_classes(label: np.ndarray, results: Mapping[str, Any]) -> np.ndarray:
    ignore = results.get('ignore_index', IGNORED_LABEL)
    label_map, num_classes = results.get('label_map'), results.get('num_classes')
    if results.get('reduce_zero_label'):
        label = np.where((label == 0) | (label == ignore), ignore, label - 1)
    if label_map is not None:
        accepted = sorted(set(label_map) | {ignore})
    elif num_classes is not None:
        accepted = [*range(num_classes), ignore]
    else:
        accepted = list(range(256))
    lowest = min(*accepted, 0)
    table = np.full(max(*accepted, 255) + 1 - lowest, -1, dtype=np.int64)
    rows = np.array(accepted) - lowest
    table[rows] = [label_map.get(value, IGNORED_LABEL) for value in accepted] if label_map is not None else accepted
    if label_map is None or ignore not in label_map:
        table[ignore - lowest] = IGNORED_LABEL
    outside = (label < lowest) | (label >= len(table) + lowest)
    mapped = table[np.where(outside, 0, label - lowest)]
    wrong = np.unique(label[outside | (mapped < 0)])
    if len(wrong):
        raise LabelValueError(
            f'{results["seg_map_path"]}: the label holds the value{"s" if len(wrong) > 1 else ""} '
            f'{", ".join(map(str, wrong[:5]))}{"..." if len(wrong) > 5 else ""}; accepted are {_ranges(accepted)}'
            + (' (after reduce_zero_label lowered them by one)' if results.get('reduce_zero_label') else '')
        )
    return mapped.astype(np.uint8)


def _ranges(values: list[int]) -> str:
    """[0, 1, 2, 255] -> '0..2, 255'."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ', '.join(str(low) if low == high else f'{low}..{high}' for low, high in parts)


@TRANSFORMS.register_module()
class LoadOptionalAnnotations(BaseTransform):
    """Load the label of an item that has one; leave other items alone.

    Like mmseg's ``LoadAnnotations``, which fails on items without labels, but with checked values: see
    :func:`read_label` for the errors. Place it before the resize to have the label resized too, after it to score at
    the label's own size.

    Required keys: none. Used: ``seg_map_path``, ``label_map``, ``num_classes``, ``reduce_zero_label``, ``ori_shape``,
    ``label_colours``, ``label_reading``, ``label_palette``.
    Added keys: ``gt_seg_map`` (uint8, (H, W)) and an entry of ``seg_fields``.
    """

    def transform(self, results: dict) -> dict:
        """Add ``gt_seg_map`` if ``results`` has a ``seg_map_path``."""
        if results.get('seg_map_path') is None:
            return results
        results['gt_seg_map'] = read_label(results)
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
