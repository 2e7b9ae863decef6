"""From values of any depth and any number of bands to 8-bit colours."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from mmengine.logging import MMLogger
from PIL import Image

LA_CANVAS = (124, 117, 104)
"""What lies behind transparent grey images, as in mmcv."""
HALF_STEP = 0.5 / 255
MODES = {1: 'L', 3: 'RGB', 4: 'RGBX'}
"""Pillow's mode of so many bands whose meaning the file does not say; a fourth one is not shown."""

Range = tuple[float, float]


def known_range(kind: np.dtype) -> Range | None:
    """Range of whole numbers of a type: 16 bits without sign have one beside 8 bits."""
    return (0.0, 65535.0) if kind.kind == 'u' and kind.itemsize == 2 else None


def to_bytes(values: np.ndarray, known: Range | None, value_range: Range | None, name: str) -> np.ndarray:
    """Values of any type as uint8, linearly from their range.

    Args:
        values: Of any shape. uint8 stay as they are.
        known: Range of whole numbers that their source implies, such as (0, 65535) for 16 bits; None for none.
        value_range: Values of black and white, which win; values beyond are clipped.
        name: Of the image, for errors.

    Raises:
        ValueError: Neither is there, except for floating-point values in [0, 1], or there are values that are not
            finite.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in 'iuf':
        raise ValueError(f'{name}: pixels must be numbers, got {values.dtype}')
    floating = values.dtype.kind == 'f'
    if floating and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(f'{name}: {count} of {values.size} values are not finite (NaN or infinite); fill them first')
    black_white = value_range or known
    if black_white is None:
        low, high = values.min(), values.max()
        if not floating or low < -HALF_STEP or high > 1 + HALF_STEP:
            kind = f'{values.dtype} values from {low:g} to {high:g}'
            raise ValueError(
                f'{name}: {kind} have no known range (8 and 16 bits without sign have, and floating-point values in '
                '[0, 1]). Set value_range to the values of black and white, e.g. --cfg-options "value_range=[0,4095]"'
            )
        black_white = (0.0, 1.0)
    black, white = black_white
    wide = floating and value_range is not None and abs(white - black) > 255
    if wide and values.min() >= 0 and 0 < values.max() <= 1:
        _tell_of_unit_range(black_white)
    scaled = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    np.subtract(scaled, black, out=scaled)
    np.multiply(scaled, 255 / (white - black), out=scaled)
    np.clip(scaled, 0, 255, out=scaled)
    return np.rint(scaled, out=scaled).astype(np.uint8)


@functools.cache
def _tell_of_unit_range(value_range: Range) -> None:
    MMLogger.get_current_instance().warning(
        f'floating-point values in [0, 1] are all but one colour by value_range={value_range}, which holds for all '
        'pictures of more than 8 bits; leave it out for pictures whose values are in [0, 1]'
    )


def chosen_bands(values: np.ndarray, bands: int | Sequence[int], name: str) -> np.ndarray:
    """Bands (H, W, 1 or 3) of values (H, W) or (H, W, C).

    Raises:
        ValueError: There is no such band.
    """
    bands = [bands] if isinstance(bands, int) else list(bands)
    values = values[..., None] if values.ndim == 2 else values
    if max(bands) >= values.shape[2]:
        raise ValueError(
            f'{name}: bands={tuple(bands)} counts from 0, and the image has {values.shape[2]} band'
            f'{"s" if values.shape[2] > 1 else ""}'
        )
    return values[..., bands]


def colours(values: np.ndarray, mode: str | None, name: str) -> np.ndarray:
    """8-bit values of known or plain bands as RGB (H, W, 3).

    Args:
        values: uint8 (H, W) or (H, W, C).
        mode: Pillow's name of what the bands are; None for plain ones.
        name: Of the image, for errors.

    Raises:
        ValueError: Two plain bands, or more than four.
    """
    values = values[..., None] if values.ndim == 2 else values
    count = values.shape[2]
    if mode is None and count not in MODES:
        raise ValueError(
            f'{name}: the image has {count} bands; say which are red, green and blue, counted from 0, e.g. '
            '--cfg-options "bands=[0,1,2]", or which one is shown in grey, "bands=[0]"'
        )
    mode = mode or MODES[count]
    if mode == 'L':
        return np.repeat(values, 3, axis=2)
    if mode == 'RGB':
        return np.ascontiguousarray(values)
    return rgb(Image.frombytes(mode, values.shape[1::-1], np.ascontiguousarray(values).tobytes()))


def rgb(image: Image.Image) -> np.ndarray:
    """An 8-bit Pillow image of any mode as uint8 (H, W, 3), as mmcv converts it: alpha is dropped, except over grey."""
    if image.mode == 'LA':
        canvas = Image.new('RGB', image.size, LA_CANVAS)
        canvas.paste(image.convert('RGBA'), mask=image.getchannel('A'))
        image = canvas
    elif image.mode != 'RGB':
        image = image.convert('RGB')
    return np.array(image)
