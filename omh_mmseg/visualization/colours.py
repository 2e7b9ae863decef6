"""Colours of clusters: distinct at the coarsest level, shades of the parent's colour below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from omh_mmseg.structures.assignment import UNMATCHED

if TYPE_CHECKING:
    from omh_mmseg.transport import Hierarchy

UNUSED_COLOUR = np.array([200, 200, 200], dtype=np.uint8)
IGNORED_COLOUR = np.array([255, 255, 255], dtype=np.uint8)

# Okabe and Ito's colours, which people with any common colour vision tell apart (black left out).
_DISTINCT = [
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66),
]  # fmt: skip
_LIGHTNESS_SPREAD = 0.19
_HUE_SPREAD = np.deg2rad(7)
_DARKEST, _LIGHTEST = 0.30, 0.95

# sRGB <-> OKLab, in which equal steps of lightness look equal for every hue.
_LINEAR_TO_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_CONES_TO_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip


def rgb_to_oklab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB (..., 3) in 0..255 to OKLab (..., 3), lightness first in 0..1."""
    srgb = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _LINEAR_TO_CONES.T) @ _CONES_TO_LAB.T


def oklab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Convert OKLab (..., 3) to sRGB uint8 (..., 3), clipped to what a screen shows."""
    cones = (np.asarray(lab, dtype=np.float64) @ np.linalg.inv(_CONES_TO_LAB).T) ** 3
    linear = np.clip(cones @ np.linalg.inv(_LINEAR_TO_CONES).T, 0, 1)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(srgb * 255).astype(np.uint8)


def distinct_colours(count: int) -> np.ndarray:
    """Give colours for ``count`` unordered things, the same ones every time.

    The first seven are safe for colour-blind readers; each further one is the colour of a fixed set that differs most
    from all before it, from white and from the grey of unused clusters.

    Returns:
        uint8 (count, 3).
    """
    colours = np.array(_DISTINCT[:count], dtype=np.uint8).reshape(-1, 3)
    if count <= len(colours):
        return colours
    lightness, chroma, hue = np.meshgrid(
        np.linspace(0.35, 0.9, 12), np.linspace(0.06, 0.18, 4), np.linspace(0, 2 * np.pi, 36, endpoint=False)
    )
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1).reshape(-1, 3)
    candidates = np.unique(oklab_to_rgb(lab), axis=0)
    lab = rgb_to_oklab(candidates)
    taken = rgb_to_oklab(np.concatenate([colours, [UNUSED_COLOUR, IGNORED_COLOUR]]))
    distance = np.linalg.norm(lab[:, None] - taken[None], axis=-1).min(axis=1)
    chosen = []
    for _ in range(count - len(colours)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=-1))
    return np.concatenate([colours, candidates[chosen]])


def class_colours(palette: np.ndarray | Sequence | None, count: int) -> np.ndarray:
    """Colours uint8 (K, 3) of ``count`` classes: those of a data set's palette where it has enough, else generated."""
    fitting = palette is not None and len(palette) >= count
    return np.asarray(palette if fitting else distinct_colours(count), np.uint8)


def level_palettes(
    hierarchy: Hierarchy, palette: np.ndarray | Sequence, assignment: np.ndarray | Sequence[int] | None
) -> list[np.ndarray]:
    """Colours of all levels: shades of the classes' colours where those of level 1 are known, else of distinct ones.

    Args:
        hierarchy: Levels and parents.
        palette: Colours of the classes.
        assignment: (K_1,) class of each coarsest cluster, -1 for none; None where nothing is known.

    Returns:
        One uint8 (K_l, 3) palette per level.
    """
    return cluster_palettes(hierarchy, None if assignment is None else palette, assignment)


def match_colours(base_palette: np.ndarray | Sequence, assignment: np.ndarray | Sequence[int]) -> np.ndarray:
    """Give every cluster the colour of the class it is matched to.

    Args:
        base_palette: (num_classes, 3) class colours, 0..255.
        assignment: (K,) class of each cluster, -1 for a cluster without a class, which becomes a grey of its own.

    Returns:
        uint8 (K, 3).
    """
    base_palette = checked_palette(base_palette)
    assignment = np.asarray(assignment)
    if assignment.ndim != 1 or (assignment < UNMATCHED).any() or (assignment >= len(base_palette)).any():
        raise ValueError(
            f'assignment {assignment.tolist()} does not fit {len(base_palette)} class colours: it must hold a class '
            f'in 0..{len(base_palette) - 1}, or {UNMATCHED} for none, per cluster'
        )
    unmatched = assignment == UNMATCHED
    colours = base_palette[np.where(unmatched, 0, assignment)]
    greys = np.linspace(90, 190, max(int(unmatched.sum()), 1)).astype(np.uint8)[: int(unmatched.sum())]
    colours[unmatched] = greys[:, None]
    return colours


def cluster_palettes(
    hierarchy: Hierarchy,
    base_palette: np.ndarray | Sequence | None = None,
    assignment: np.ndarray | Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Colour all levels so that a finer cluster has a shade of its parent's colour.

    Each cluster owns a range of lightness and hue around its own colour; its children share that range out, so that
    children of different parents never mix and the hierarchy can be read off a segmentation of any level.

    Args:
        hierarchy: Levels and parents, coarsest level first.
        base_palette: Colours 0..255 of the K_1 coarsest clusters, or with ``assignment`` of the classes. Default:
            :func:`distinct_colours`.
        assignment: (K_1,) class of each coarsest cluster (Hungarian), -1 for none: level 1 then has class colours.

    Returns:
        One uint8 (K_l, 3) palette per level.

    Raises:
        ValueError: Sizes differ.
    """
    num_roots = hierarchy.level_sizes[0]
    if base_palette is None:
        count = num_roots if assignment is None else max(num_roots, int(np.max(assignment)) + 1)
        base_palette = distinct_colours(count)
    colours = checked_palette(base_palette) if assignment is None else match_colours(base_palette, assignment)
    if len(colours) != num_roots:
        raise ValueError(
            f'level 1 has {num_roots} clusters but got {len(colours)} colours; give one colour per cluster, or the '
            'class palette together with an assignment'
        )

    root_lab = rgb_to_oklab(colours)
    roots = np.arange(num_roots)
    low, high = np.zeros(num_roots), np.ones(num_roots)
    palettes = [colours]
    for tensor in hierarchy.parents:
        parents = tensor.numpy()
        child_low, child_high = np.empty(len(parents)), np.empty(len(parents))
        for parent in np.unique(parents):
            children = np.flatnonzero(parents == parent)
            edges = np.linspace(low[parent], high[parent], len(children) + 1)
            child_low[children], child_high[children] = edges[:-1], edges[1:]
        roots, low, high = roots[parents], child_low, child_high
        palettes.append(_shades(root_lab[roots], (low + high) / 2))
    return palettes


def checked_palette(palette: np.ndarray | Sequence) -> np.ndarray:
    """Return a palette as uint8 (count, 3), or raise ValueError."""
    colours = np.array(palette)
    if colours.ndim != 2 or colours.shape[1] != 3 or (colours < 0).any() or (colours > 255).any():
        raise ValueError(f'a palette holds RGB values in 0..255 of shape (count, 3), got shape {colours.shape}')
    return colours.astype(np.uint8)


def hex_colour(rgb: np.ndarray) -> str:
    """Write an RGB colour in 0..255 as ``#rrggbb``."""
    red, green, blue = (int(value) for value in rgb)
    return f'#{red:02x}{green:02x}{blue:02x}'


def _shades(lab: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Move OKLab colours (n, 3) through their ranges; position 0.5 leaves a colour as it is."""
    lightness, chroma, hue = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2]), np.arctan2(lab[:, 2], lab[:, 1])
    darkest = np.minimum(lightness, np.maximum(_DARKEST, lightness - _LIGHTNESS_SPREAD))
    lightest = np.maximum(lightness, np.minimum(_LIGHTEST, lightness + _LIGHTNESS_SPREAD))
    offset = 2 * position - 1
    lightness = lightness + np.where(offset < 0, offset * (lightness - darkest), offset * (lightest - lightness))
    hue = hue + offset * _HUE_SPREAD
    return oklab_to_rgb(np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1))
