"""Pictures of the page: photos, levels, labels, and the shade that leaves one cluster of an image lit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.files import replaced_when_complete

QUALITY = 82
MOST_COLOURS = 256
GRID_SIDE = 160


def shown_size(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width at which an image is shown: its longer side at most ``side``, never enlarged."""
    height, width = size
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) at another size, each pixel that of the nearest one."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.int64) for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns[None]]


def write_photo(path: Path, rgb: np.ndarray, size: tuple[int, int]) -> None:
    """Write an image (H, W, 3) as JPEG of a size (height, width)."""
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    if picture.size != size[::-1]:
        picture = picture.resize(size[::-1], Image.Resampling.LANCZOS)
    _save(path, picture, format='jpeg', quality=QUALITY, optimize=True)


def write_level(path: Path, clusters: np.ndarray, palette: np.ndarray) -> None:
    """Write clusters (H, W) as PNG in their colours (K, 3): a palette picture where one holds that many."""
    if len(palette) > MOST_COLOURS:
        picture = Image.fromarray(palette.astype(np.uint8)[clusters])
    else:
        picture = Image.fromarray(clusters.astype(np.uint8))
        picture.putpalette(palette.astype(np.uint8).tobytes())
    _save(path, picture, format='png', optimize=True)


def write_labels(path: Path, labels: np.ndarray, palette: np.ndarray) -> None:
    """Write labels (H, W) as PNG in the classes' colours (K, 3), those without a class transparent."""
    colours = np.zeros((MOST_COLOURS, 3), np.uint8)
    colours[: len(palette)] = palette
    picture = Image.fromarray(np.where(labels < len(palette), labels, IGNORED_LABEL).astype(np.uint8))
    picture.putpalette(colours.tobytes())
    _save(path, picture, format='png', optimize=True, transparency=IGNORED_LABEL)


def write_shade(path: Path, inside: np.ndarray) -> None:
    """Write a mask as PNG of one bit: transparent inside (H, W), black outside."""
    picture = Image.fromarray(inside.astype(np.uint8))
    picture.putpalette(bytes(6))
    _save(path, picture, format='png', optimize=True, transparency=bytes([255, 0]))


def runs(clusters: np.ndarray) -> list[int]:
    """Clusters of a grid (h, w), row by row, as runs: cluster, length, cluster, length, ..."""
    flat = clusters.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.concatenate([starts, [len(flat)]]))
    return np.stack([flat[starts], lengths], axis=1).ravel().tolist()


def _save(path: Path, picture: Image.Image, **options: Any) -> None:
    with replaced_when_complete(path) as file:
        picture.save(file, **options)
