"""Decoders for what Pillow cannot decode: colours of more than 8 bits, and TIFFs of other bands than it knows."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
WIDTH, HEIGHT, BITS, ORIENTATION, SAMPLES, FORMAT = 256, 257, 258, 274, 277, 339
UNSIGNED, SIGNED = 1, 2
DEEP_COLOURS = re.compile(r'(RGB|RGBA|RGBX|LA|CMYK);16[A-Z]')
"""Pillow's names of 16-bit colours on disk, of which it keeps the upper 8 bits."""
UNTOLD_DEPTH = ('JPEG2000', 'PPM')
"""Formats whose colours Pillow scales to 8 bits by the range in the file, without telling."""
INSTALL = "pip install 'omh-mmseg[tiff]', which brings tifffile and its codecs"


@dataclass(frozen=True)
class TiffHeader:
    """What the first directory of a TIFF says, whether or not Pillow can decode it."""

    width: int
    height: int
    bands: int
    orientation: int


def is_tiff(content: bytes) -> bool:
    """Whether a file is a TIFF, by its first bytes."""
    return content[:4] in TIFF_MAGIC


def tiff_header(content: bytes) -> TiffHeader:
    """The header of a TIFF's first picture.

    Raises:
        OSError: It is damaged.
    """
    try:
        big = content[2] in b'+' or content[3] in b'+'
        stream = io.BytesIO(content)
        directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(16 if big else 8))
        stream.seek(directory.next)
        directory.load(stream)
        tag = directory.get(ORIENTATION, 1)
        return TiffHeader(directory[WIDTH], directory[HEIGHT], directory.get(SAMPLES, 1), tag if tag in range(9) else 1)
    except Exception as error:  # Pillow raises many kinds, from struct.error to KeyError, for one reason: damage
        raise OSError(f'a damaged TIFF ({type(error).__name__}: {error})') from error


def raw_mode(image: Image.Image) -> str:
    """Pillow's name of the values on disk, ``'RGB;16B'``; empty for images in memory and for formats without one."""
    for tile in getattr(image, 'tile', None) or []:
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        return arguments[0] if arguments and isinstance(arguments[0], str) else ''
    return ''


def has_deep_colours(image: Image.Image, suspected: bool) -> bool:
    """Whether Pillow would cut the values of an image, not yet decoded, to 8 bits.

    Args:
        image: The image.
        suspected: Whether to say yes where Pillow does not tell.
    """
    if DEEP_COLOURS.fullmatch(raw_mode(image)):
        return True
    return suspected and image.format in UNTOLD_DEPTH and image.mode in ('RGB', 'RGBA', 'LA')


def grey_range(image: Image.Image) -> tuple[float, float] | None:
    """Range of a grey image of more than 8 bits, not yet decoded, as far as its file says it; None where it does not.

    Numbers without sign of 9 to 16 bits have one.
    """
    if image.mode == 'F':
        return None
    tags, raw = getattr(image, 'tag_v2', {}), raw_mode(image)
    if tags:
        bits, kind = max(tags.get(BITS, (1,))), max(tags.get(FORMAT, (UNSIGNED,)))
        return (0, 2**bits - 1) if bits <= 16 and kind == UNSIGNED else None
    # Pillow scales the numbers of netpbm files to 16 bits.
    netpbm = any(tile[0].startswith('ppm') for tile in getattr(image, 'tile', None) or [])
    return (0, 65535) if image.mode.startswith('I;16') or ';16' in raw or netpbm else None


def without_sign(values: np.ndarray, tags: Any) -> np.ndarray:
    """Values of Pillow's mode I, as its file means them: it has no 32 bits without sign."""
    unsigned = bool(tags) and max(tags.get(BITS, (1,))) == 32 and max(tags.get(FORMAT, (UNSIGNED,))) == UNSIGNED
    return values.view(np.uint32) if unsigned and values.dtype == np.int32 else values


def decode_deep(content: bytes, orientation: int, bands: int | None) -> np.ndarray | None:
    """Values (H, W) or (H, W, bands) of a file in their own type, as stored: not turned.

    Args:
        content: Of the file.
        orientation: Its EXIF tag.
        bands: How many it has, where known.

    Returns:
        None where no decoder at hand can.
    """
    tiff = is_tiff(content)
    values = _by_tifffile(content) if tiff else None
    # OpenCV turns TIFFs, by rules that depend on its version and their depth.
    if values is None and not (tiff and orientation != 1):
        values = _by_opencv(content)
    if values is None or (bands is not None and (1 if values.ndim == 2 else values.shape[2]) != bands):
        return None
    return values


def _by_tifffile(content: bytes) -> np.ndarray | None:
    try:
        tifffile = import_module('tifffile')
    except ModuleNotFoundError:
        return None
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        values, axes = page.asarray(), page.axes
    return np.moveaxis(values, 0, -1) if axes.startswith('S') and values.ndim == 3 else values


def _by_opencv(content: bytes) -> np.ndarray | None:
    try:
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if values is None or values.ndim == 2 or values.shape[2] < 3:
        return values
    return values[..., [2, 1, 0, *range(3, values.shape[2])]]
