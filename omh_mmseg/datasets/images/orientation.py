"""Photos that are stored on their side, and labels that were drawn on either form of them.

A camera stores the pixels as its sensor has them and notes in the EXIF orientation tag how to turn them for the eye.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

TAG = 0x0112
LABEL_ORIENTATIONS = ('auto', 'turned', 'stored')

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
_INVERSES = {6: 8, 8: 6}
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def orientation_tag(image: Image.Image) -> int:
    """The EXIF orientation of a Pillow image, 1 (as stored) to 8; 1 where the tag is absent or damaged."""
    try:
        tag = image.getexif().get(TAG, 1)
    except Exception:  # Pillow raises many kinds on damaged metadata, which do not harm the pixels
        return 1
    return tag if isinstance(tag, int) and tag in _TURNS else 1


def turn(pixels: np.ndarray, tag: int) -> np.ndarray:
    """Stored pixels (H, W, ...) turned as a tag says: 90 degrees from 5 on, which exchanges H and W."""
    return np.ascontiguousarray(_TURNS[tag](pixels)) if tag in _TURNS else pixels


def turn_back(pixels: np.ndarray, tag: int) -> np.ndarray:
    """The inverse of `turn`."""
    return turn(pixels, _INVERSES.get(tag, tag))


def load_stored(image: Image.Image) -> Image.Image:
    """The pixels of an opened file as they are stored, in memory: Pillow turns TIFFs by their tag, and others not."""
    tag = orientation_tag(image)
    image.load()
    turned = tag in _BACK and orientation_tag(image) == 1
    return image.transpose(_BACK[tag]) if turned else image.copy()


def label_like_image(label: np.ndarray, results: Mapping[str, Any]) -> np.ndarray:
    """A label in the orientation in which its image was loaded.

    Args:
        label: (H, W), as stored; what an orientation tag in the label's own file says does not count.
        results: The item: ``exif_orientation`` of the image, whether it was turned (``turn_images``, true by default),
            its size ``ori_shape``, and ``label_orientation``, which form of it the label was drawn on: ``'stored'``,
            ``'turned'``, or ``'auto'``, the one whose size the label has.

    Raises:
        ValueError: ``'auto'``, and both forms have that size.
    """
    tag, drawn = results.get('exif_orientation', 1), results.get('label_orientation', 'auto')
    if tag == 1:
        return label
    turned = results.get('turn_images', True)
    if drawn == 'auto':
        size = tuple(results['ori_shape'][:2])
        if label.shape not in (size, size[::-1]):
            return label
        if tag < 5 or size[0] == size[1]:
            raise ValueError(
                f'{results.get("img_path")} is stored with the EXIF orientation tag {tag}, and its label '
                f'{results.get("seg_map_path")} has the size of the stored picture and of the turned one: set '
                "label_orientation='turned' of the data set if the labels were drawn on photos as viewers show them, "
                "or 'stored' if on the pixels as they are in the files"
            )
        drawn = 'turned' if (label.shape == size) == turned else 'stored'
    if drawn == 'stored' and turned:
        return turn(label, tag)
    if drawn == 'turned' and not turned:
        return turn_back(label, tag)
    return label


def orientation_hint(results: Mapping[str, Any], label_size: tuple[int, ...]) -> str:
    """What to add to an error about the sizes of an image and its label, (H, W)."""
    tag = results.get('exif_orientation', 1)
    if tag == 1:
        exchanged = tuple(results['ori_shape'][:2]) == label_size[::-1]
        return '; one is the other turned, as by an EXIF orientation that the image has lost' * exchanged
    return (
        f'; the image has the EXIF orientation tag {tag}, and label_orientation='
        f"{results.get('label_orientation', 'auto')!r} of the data set says which form of it the labels were drawn on "
        f'(one of {LABEL_ORIENTATIONS})'
    )
