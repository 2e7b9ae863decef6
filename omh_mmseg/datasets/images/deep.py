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

from omh_mmseg.shipped import install_extra

TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES, PLANAR, FORMAT = 256, 257, 258, 262, 274, 277, 284, 339
UNSIGNED, SIGNED = 1, 2
WHITE_IS_ZERO, BAND_BY_BAND = 0, 2
DEEP_COLOURS = re.compile(r'(RGB|RGBA|RGBX|LA|CMYK);16[A-Z]')
"""Pillow's names of 16-bit colours on disk, of which it keeps the upper 8 bits."""
UNTOLD_DEPTH = ('JPEG2000', 'PPM')
"""Formats whose colours Pillow scales to 8 bits by the range in the file, without telling."""
INSTALL = f'{install_extra("tiff")}, which brings tifffile and its codecs'


@dataclass(frozen=True)
class TiffHeader:
    """What the first directory of a TIFF says, whether or not Pillow can decode it."""

    width: int
    height: int
    bands: int
    orientation: int
    planes: bool
    """Whether one band is stored after the other."""


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
        orientation, planes = tag if tag in range(9) else 1, directory.get(PLANAR) == BAND_BY_BAND
        return TiffHeader(directory[WIDTH], directory[HEIGHT], directory.get(SAMPLES, 1), orientation, planes)
    except Exception as error:  # Pillow raises many kinds, from struct.error to KeyError, for one reason: damage
        raise OSError(f'a damaged TIFF ({type(error).__name__}: {error})') from error


def raw_mode(image: Image.Image) -> str:
    """Pillow's name of the values on disk, ``'RGB;16B'``; empty for images in memory and for formats without one."""
    for tile in getattr(image, 'tile', None) or []:
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        return arguments[0] if arguments and isinstance(arguments[0], str) else ''
    return ''


def is_cut(image: Image.Image) -> bool:
    """Whether deep colours become those of the upper 8 bits in Pillow; False where it mistakes them altogether."""
    return not _has_planes(image)


def _has_planes(image: Image.Image) -> bool:
    """Whether a TIFF stores one band after the other, which Pillow takes for 8-bit ones whatever they are."""
    tags = getattr(image, 'tag_v2', {})
    return tags.get(PLANAR) == BAND_BY_BAND and tags.get(SAMPLES, 1) > 1


def has_deep_colours(image: Image.Image, suspected: bool) -> bool:
    """Whether Pillow would cut the values of an image, not yet decoded, to 8 bits.

    Args:
        image: The image.
        suspected: Whether to say yes where Pillow does not tell.
    """
    if DEEP_COLOURS.fullmatch(raw_mode(image)) or (_has_planes(image) and max(getattr(image, 'tag_v2', {})[BITS]) > 8):
        return True
    return suspected and image.format in UNTOLD_DEPTH and image.mode in ('RGB', 'RGBA', 'LA')


def grey_range(image: Image.Image) -> tuple[float, float] | None:
    """Range of a grey image of more than 8 bits, not yet decoded, as far as its file says it; None where it does not.

    Numbers without sign of 9 to 16 bits have one, from the value of black to that of white.
    """
    if image.mode == 'F':
        return None
    tags, raw = getattr(image, 'tag_v2', {}), raw_mode(image)
    if tags:
        bits, kind = max(tags.get(BITS, (1,))), max(tags.get(FORMAT, (UNSIGNED,)))
        if bits > 16 or kind != UNSIGNED:
            return None
        return (2**bits - 1, 0) if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else (0, 2**bits - 1)
    # Pillow scales the numbers of netpbm files to 16 bits.
    netpbm = any(tile[0].startswith('ppm') for tile in getattr(image, 'tile', None) or [])
    return (0, 65535) if image.mode.startswith('I;16') or ';16' in raw or netpbm else None


def as_meant(values: np.ndarray, tags: Any) -> np.ndarray:
    """Grey values of Pillow as their file means them: it has no 32 bits without sign, and no 8 bits with one."""
    if not tags:
        return values
    bits, kind = max(tags.get(BITS, (1,))), max(tags.get(FORMAT, (UNSIGNED,)))
    if values.dtype == np.int32 and (bits, kind) == (32, UNSIGNED):
        return values.view(np.uint32)
    return values.view(np.int8) if values.dtype == np.uint8 and (bits, kind) == (8, SIGNED) else values


def decode_deep(content: bytes, bands: int | None) -> np.ndarray | None:
    """Values (H, W) or (H, W, bands) of a file in their own type, as stored: not turned.

    Args:
        content: Of the file.
        bands: How many it has, where known.

    Returns:
        None where no decoder at hand can.

    Raises:
        OSError: It is damaged.
    """
    values = _by_tifffile(content) if is_tiff(content) else None
    if values is None and not (is_tiff(content) and _opencv_is_wrong(tiff_header(content))):
        values = _by_opencv(content)
    if values is None or (bands is not None and (1 if values.ndim == 2 else values.shape[2]) != bands):
        return None
    return values


def _opencv_is_wrong(header: TiffHeader) -> bool:
    """It turns TIFFs by rules that depend on its version and their depth, and mixes up deep ones stored by bands."""
    return header.orientation != 1 or (header.planes and header.bands > 1)


def _by_tifffile(content: bytes) -> np.ndarray | None:
    try:
        tifffile = import_module('tifffile')
    except ModuleNotFoundError:
        return None
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        try:
            values, axes = page.asarray(), page.axes
        except ValueError:  # a compression whose codec is not installed; damage is found by the next decoder
            return None
    return np.moveaxis(values, 0, -1) if axes.startswith('S') and values.ndim == 3 else values


def _by_opencv(content: bytes) -> np.ndarray | None:
    try:
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if values is None or values.ndim == 2 or values.shape[2] < 3:
        return values
    return values[..., [2, 1, 0, *range(3, values.shape[2])]]
