"""Pictures whose JPEG files are as large, and as slow to decode, as those of COCO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

PATTERNS = 3
COARSEST = 4
DECAY = 0.2
GREY = 0.6
CONTRAST = 60
QUALITY = 92


def write_photos(folder: Path, count: int, height: int = 480, width: int = 640) -> list[Path]:
    """Write pictures of noise at all scales: about 168 kB of JPEG at 640 x 480; those of COCO have 163 kB on average.

    Args:
        folder: Made if absent.
        count: How many.
        height: In pixels.
        width: In pixels.

    Returns:
        The files, in the order of their names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    patterns = [_pattern(random, height, width) for _ in range(min(PATTERNS, count))]
    paths = []
    for number in range(count):
        rolled = np.roll(patterns[number % len(patterns)], random.integers(0, (height, width)), axis=(0, 1))
        paths.append(folder / f'{number:06d}.jpg')
        Image.fromarray(rolled).save(paths[-1], quality=QUALITY)
    return paths


def _pattern(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 (H, W, 3): octaves of noise, finer ones weaker, mostly grey as the world is."""
    total = np.zeros((height, width, 3), np.float32)
    side = COARSEST
    while side <= width:
        noise = random.normal(size=(max(1, side * height // width), side, 3)).astype(np.float32)
        channels = [Image.fromarray(noise[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        octave = np.stack([np.asarray(channel) for channel in channels], axis=-1)
        octave = GREY * octave.mean(axis=-1, keepdims=True) + (1 - GREY) * octave
        total += octave * (COARSEST / side) ** DECAY
        side *= 2
    return (128 + CONTRAST * total / total.std()).clip(0, 255).astype(np.uint8)
