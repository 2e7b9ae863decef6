"""Pictures that hold labels: which of them can, and what stands in them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omh_mmseg.choices import MAX_PIXELS
from omh_mmseg.datasets.base import LabelFileError
from omh_mmseg.datasets.images.orientation import load_stored
from omh_mmseg.datasets.images.reader import guard_for, without_guard
from omh_mmseg.datasets.label_colours import (
    UNKNOWN,
    Colour,
    classes_of_colours,
    count_colours,
    described,
    known_colours,
    unknown_colours,
)
from omh_mmseg.shipped import command_line
from omh_mmseg.structures.labels import IGNORED_LABEL

ALWAYS, PALETTES, CHANNELS = 'always', 'palettes', 'channels'
"""Which pictures are read by colour: all, also those with a palette, or those alone that have no class numbers."""
_LOSSY_FORMATS = ('JPEG', 'MPO', 'JPEG2000', 'AVIF', 'HEIF')
_WEBP_LOSSLESS = b'VP8L'


def open_label_of(results: Mapping[str, Any]) -> Image.Image:
    """The picture with an item's label, as large as its image may be; see `open_label`."""
    height, width = results.get('ori_shape', (0, 0))[:2]
    return open_label(results['seg_map_path'], max_pixels=max(MAX_PIXELS, height * width))


def open_label(path: str | os.PathLike[str], lossy: bool = False, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture with labels, in memory, as it is stored: not turned by a tag.

    Args:
        path: The file.
        lossy: Take one whose format changes values, too.
        max_pixels: Larger ones are refused.

    Raises:
        LabelFileError: It is missing, truncated or not a picture.
        ValueError: Its format changes values, as JPEG does, or it is too large.
    """
    try:
        # From the path Pillow maps uncompressed TIFFs into memory, and those with an orientation tag wrongly.
        with without_guard():
            image = Image.open(io.BytesIO(Path(path).read_bytes()))
        with image, guard_for(image):
            if image.width * image.height > max_pixels:
                raise ValueError(
                    f'{path}: the label has {image.width} x {image.height} pixels, more than its image and than '
                    f'max_pixels={max_pixels}, which guards against files that unpack to more than the memory'
                )
            kind = _lossy_format(image, path)
            if kind and not lossy:
                raise ValueError(
                    f'{path}: {kind} changes values, so that the labels in it are not exact. Take the originals, or '
                    f'convert the folder with {command_line("prepare.py")} labels ... --tolerance N, which takes '
                    'the nearest colour'
                )
            return load_stored(image)
    except Image.UnidentifiedImageError as error:
        raise LabelFileError(
            f'{path}: the label cannot be read (UnidentifiedImageError): it is not a picture that Pillow knows. '
            'Labels are pictures such as PNG, or .mat'
        ) from error
    except (OSError, SyntaxError, EOFError) as error:
        raise LabelFileError(f'{path}: the label cannot be read ({type(error).__name__}: {error})') from error


def _lossy_format(image: Image.Image, path: str | os.PathLike[str]) -> str | None:
    if image.format in _LOSSY_FORMATS:
        return image.format
    if image.format == 'WEBP':
        with open(path, 'rb') as file:
            return None if _WEBP_LOSSLESS in file.read(64) else 'lossy WEBP'
    return f'{image.format} with JPEG' if 'jpeg' in str(image.info.get('compression', '')).lower() else None


def has_numbers(image: Image.Image) -> bool:
    """Whether a picture has one channel of numbers (with a palette or not), beside which an alpha channel may stand."""
    return len(set(image.getbands()) - {'A'}) == 1


def class_numbers(image: Image.Image, path: str | os.PathLike[str]) -> np.ndarray:
    """The numbers (H, W) in a picture of one channel; with a palette, those before it is looked up.

    Raises:
        ValueError: It has more channels, or pixels that are transparent.
    """
    if not has_numbers(image):
        colours = count_colours(np.array(image.convert('RGB')))
        shown = ', '.join(described(colour) for colour in [*colours][:3]) + ', ...' * (len(colours) > 3)
        raise ValueError(
            f'{path}: a label must have one channel of class numbers, this one has the shape '
            f'{np.array(image).shape} and {len(colours)} colour{"s" * (len(colours) > 1)} ({shown}). Say which colour '
            'is which class with label_colours=[[r, g, b], ...] of the data set or "palette" in classes.json, or '
            f'convert the folder: {command_line("prepare.py")} labels'
        )
    _check_opaque(image, path)
    pixels = np.array(image)
    return pixels if pixels.ndim == 2 else pixels[..., 0]


def colours_of(image: Image.Image, path: str | os.PathLike[str]) -> np.ndarray:
    """The colours uint8 (H, W, 3) of a picture.

    Raises:
        ValueError: Pixels are transparent, or it is a grey one of more than eight bits.
    """
    if image.mode.startswith(('I', 'F')):
        raise ValueError(f'{path}: colours have eight bits, this picture has the mode {image.mode!r}; use label_map')
    _check_opaque(image, path)
    return np.array(image.convert('RGB'))


def used_colours(image: Image.Image) -> dict[int, Colour]:
    """The palette's colour of each number in a picture with a palette."""
    palette = np.array(image.getpalette('RGB') or [], np.uint8).reshape(-1, 3)
    numbers = np.flatnonzero(np.bincount(np.array(image).reshape(-1), minlength=256))
    black: Colour = (0, 0, 0)
    return {int(n): tuple(palette[n].tolist()) if n < len(palette) else black for n in numbers}


def by_colour(image: Image.Image, results: Mapping[str, Any]) -> bool:
    """Whether an item's picture is read by colour, as its ``label_reading`` and ``label_colours`` say."""
    reading = results.get('label_reading', CHANNELS)
    if not results.get('label_colours') or image.mode.startswith(('I', 'F')) and reading != ALWAYS:
        return False
    return reading == ALWAYS or not has_numbers(image) or (reading == PALETTES and image.mode == 'P')


def classes_in_colour(image: Image.Image, results: Mapping[str, Any]) -> np.ndarray:
    """Classes (H, W) of a picture by ``label_colours``; with a palette, the ignored number may have any colour.

    Raises:
        ValueError: A colour is not among them.
    """
    path, table = results['seg_map_path'], results['label_colours']
    pixels = colours_of(image, path)
    classes = classes_of_colours(pixels, table)
    if image.mode == 'P':
        ignore = results.get('ignore_index', IGNORED_LABEL)
        classes[(classes == UNKNOWN) & (np.array(image) == ignore)] = IGNORED_LABEL
    wrong = classes == UNKNOWN
    if wrong.any():
        raise ValueError(
            f'{path}: {unknown_colours(count_colours(pixels[wrong]))}; {known_colours(table)}. Give them to classes, '
            "or to 'ignored', in label_colours"
            + (', or read class numbers with label_colours=False' if image.mode == 'P' else '')
        )
    return classes


def check_palette(image: Image.Image, results: Mapping[str, Any]) -> None:
    """Refuse a picture whose palette gives another colour to a number than those that were looked at first.

    Raises:
        ValueError: It does; a number would not mean the same class in both.
    """
    expected, ignore = results.get('label_palette'), results.get('ignore_index', IGNORED_LABEL)
    if not expected or image.mode != 'P':
        return
    for number, colour in used_colours(image).items():
        if number != ignore and expected.get(number, colour) != colour:
            raise ValueError(f'{results["seg_map_path"]}: {palette_conflict(number, colour, expected[number])}')


def palette_conflict(number: int, colour: Colour, other: Colour) -> str:
    """What is wrong where palettes differ, and what to do."""
    return (
        f'its palette gives the number {number} the colour {described(colour)}, other labels give it '
        f'{described(other)}: the numbers do not mean the same in all files. Say which colour is which class with '
        'label_colours=[[r, g, b], ...] or "palette" in classes.json, convert the folder with '
        f'{command_line("prepare.py")} labels, or, if the numbers are right all the same, set label_colours=False'
    )


def _check_opaque(image: Image.Image, path: str | os.PathLike[str]) -> None:
    if 'A' not in image.getbands():
        return
    clear = int((np.array(image.getchannel('A')) < 255).sum())
    if clear:
        raise ValueError(
            f'{path}: {clear} pixels are transparent, which says nothing of their class. Fill them with the colour of '
            f"one, or convert the folder: {command_line('prepare.py')} labels ... --background '#rrggbb'"
        )
