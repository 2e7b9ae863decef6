"""Label maps as picture files whose colours show what their numbers say."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from omh_mmseg.utils.files import replaced_when_complete

LARGEST = 255
GOLDEN = 0.618034
"""Share of the circle of hues between neighbouring numbers without a colour: no two of them are alike."""


def write_mask(path: str | os.PathLike[str], labels: np.ndarray, palette: np.ndarray | Sequence | None = None) -> None:
    """Write a label map as PNG whose pixels are its numbers and whose palette has their colours.

    ``np.array(Image.open(path))`` gives the numbers back. Numbers above 255, which no palette holds, make a 16-bit grey
    picture.

    Args:
        path: File, which appears complete or not at all.
        labels: Integers from 0 to 65535, (H, W).
        palette: Colours 0..255 of the first numbers, (K, 3); the others get colours of their own, and 255 white.
    """
    labels = np.asarray(labels)
    if int(labels.max(initial=0)) > LARGEST or (palette is not None and len(palette) > LARGEST):
        picture = Image.fromarray(labels.astype(np.uint16))
    else:
        picture = Image.fromarray(labels.astype(np.uint8))
        picture.putpalette(_all_colours(palette).tobytes())
    with replaced_when_complete(path) as file:
        picture.save(file, format='png')


def _all_colours(palette: np.ndarray | Sequence | None) -> np.ndarray:
    """A colour for each of the 256 numbers."""
    hues = (colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.6, 0.9) for number in range(LARGEST))
    colours = np.array([*hues, (1, 1, 1)])
    colours = np.round(255 * colours).astype(np.uint8)
    if palette is not None:
        colours[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    return colours
