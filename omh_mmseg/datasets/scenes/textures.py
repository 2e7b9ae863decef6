"""Procedural surfaces: functions from object coordinates to colour.

A surface takes two arrays of coordinates ``u`` and ``v`` (any equal shape ``(...)``; ``v`` grows downwards; about
one unit per object height) and returns RGB in 0..1, shape ``(..., 3)``. What varies from object to object is drawn
when the surface is made, so that painting itself is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

Array = np.ndarray
Surface = Callable[[Array, Array], Array]
Colour = tuple[float, float, float]

_TILE = 1024
_CELLS = 32


@lru_cache(maxsize=1)
def _noise_tiles() -> tuple[Array, Array]:
    """Two periodic noise tiles of shape ``(1024, 1024)`` in -1..1: smooth value noise and its sum over octaves."""
    rng = np.random.Generator(np.random.PCG64(7))

    def octave(cells: int) -> Array:
        lattice = rng.random((cells, cells)) * 2 - 1
        position = np.arange(_TILE) * cells / _TILE
        low = position.astype(int)
        weight = position - low
        weight = weight * weight * (3 - 2 * weight)
        high = (low + 1) % cells
        rows = lattice[low] * (1 - weight)[:, None] + lattice[high] * weight[:, None]
        return rows[:, low] * (1 - weight) + rows[:, high] * weight

    smooth = octave(_CELLS)
    rough = sum(octave(_CELLS * 2**k) * 0.6**k for k in range(4))
    return smooth.astype(np.float32), (rough / np.abs(rough).max()).astype(np.float32)


class Noise:
    """Value noise in -1..1, about one bump per unit of ``u`` and ``v``.

    Args:
        rng: Source of the random offset.
        rough: Sum four octaves instead of one.
    """

    def __init__(self, rng: np.random.Generator, rough: bool = False) -> None:
        self.tile = _noise_tiles()[int(rough)]
        self.offset = rng.integers(0, _TILE, 2)

    def __call__(self, u: Array, v: Array) -> Array:
        """Noise at ``(u, v)``, of their shape."""
        scale = _TILE / _CELLS
        column = (u * scale).astype(np.int64) + self.offset[0] & _TILE - 1
        row = (v * scale).astype(np.int64) + self.offset[1] & _TILE - 1
        return self.tile[row, column]


def vary(rng: np.random.Generator, colour: Colour, amount: float = 0.06) -> Colour:
    """A colour near ``colour``: common brightness change and smaller changes per channel."""
    shift = rng.normal(0, amount) + rng.normal(0, amount * 0.6, 3)
    red, green, blue = np.clip(np.asarray(colour) + shift, 0.02, 0.98).tolist()
    return red, green, blue


def pick(rng: np.random.Generator, palette: list[Colour]) -> Colour:
    """One colour of a palette, varied."""
    return vary(rng, palette[rng.integers(len(palette))])


def rgb(colour: Colour) -> Array:
    """The colour as a float32 array of shape ``(3,)``."""
    return np.asarray(colour, np.float32)


def mix(first: Colour, second: Colour, weight: Array) -> Array:
    """Blend two colours by a weight of any shape; returns that shape with 3 channels appended."""
    return rgb(first) + (rgb(second) - rgb(first)) * weight[..., None].astype(np.float32)


def darker(colour: Colour, factor: float) -> Colour:
    """The colour with its brightness scaled."""
    red, green, blue = colour
    return min(red * factor, 1.0), min(green * factor, 1.0), min(blue * factor, 1.0)


def mottled(rng: np.random.Generator, colour: Colour, frequency: float = 6, contrast: float = 0.15) -> Surface:
    """Plaster, metal, haze: one colour with soft spots."""
    noise = Noise(rng, rough=True)
    return lambda u, v: rgb(colour) * (1 + contrast * noise(u * frequency, v * frequency))[..., None]


def brick(rng: np.random.Generator, colour: Colour, rows: float = 12) -> Surface:
    """Courses of bricks with joints, each brick of its own brightness."""
    joint, noise = pick(rng, [(0.8, 0.78, 0.74), (0.45, 0.42, 0.4)]), Noise(rng, rough=True)

    def surface(u: Array, v: Array) -> Array:
        row = np.floor(v * rows)
        along = u * rows / 2.2 + 0.5 * (row % 2)
        brightness = 0.85 + 0.25 * noise(np.floor(along) * 1.37, row * 1.73)
        is_joint = ((v * rows) % 1 < 0.2) | (along % 1 < 0.1)
        return np.where(is_joint[..., None], rgb(joint), rgb(colour) * brightness[..., None])

    return surface


def stripes(
    rng: np.random.Generator, first: Colour, second: Colour, count: float, angle: float = 0.0, duty: float = 0.5
) -> Surface:
    """Parallel stripes; ``angle`` 0 runs them along ``u`` (planks), pi/2 along ``v`` (panels)."""
    noise, cos, sin = Noise(rng, rough=True), float(np.cos(angle)), float(np.sin(angle))

    def surface(u: Array, v: Array) -> Array:
        phase = (v * cos + u * sin) * count + 0.15 * noise(u * 3, v * 3)
        colour = mix(first, second, phase % 1 < duty)
        return colour * (1 + 0.1 * noise(u * 9, v * 9))[..., None]

    return surface


def roof_tiles(rng: np.random.Generator, colour: Colour, rows: float = 9) -> Surface:
    """Scalloped rows with a shadow under each."""
    noise = Noise(rng, rough=True)

    def surface(u: Array, v: Array) -> Array:
        row = np.floor(v * rows)
        along = u * rows + 0.5 * (row % 2)
        bow = 4 * (along % 1 - 0.5) ** 2
        depth = (v * rows - row + 0.3 * bow) % 1
        brightness = 0.6 + 0.55 * depth + 0.15 * noise(np.floor(along) * 1.9, row * 1.3)
        return rgb(colour) * brightness[..., None]

    return surface


def leafy(rng: np.random.Generator, colour: Colour, frequency: float, contrast: float = 0.45) -> Surface:
    """Clumps of leaves: light on top of each clump, dark gaps between."""
    coarse, fine = Noise(rng), Noise(rng)
    warm = vary(rng, (colour[0] * 1.3, colour[1] * 1.15, colour[2] * 0.8), 0.03)

    def surface(u: Array, v: Array) -> Array:
        clump = coarse(u * frequency, v * frequency)
        lit = clump - coarse(u * frequency, v * frequency + 0.5)
        leaf = fine(u * frequency * 3.1, v * frequency * 3.1)
        weight = np.clip(0.5 + 0.5 * leaf + 0.4 * clump, 0, 1)
        return mix(darker(colour, 0.7), warm, weight) * (1 + contrast * (lit + 0.5 * leaf))[..., None]

    return surface


def bark(rng: np.random.Generator, colour: Colour) -> Surface:
    """Long vertical furrows."""
    noise = Noise(rng, rough=True)
    return lambda u, v: rgb(colour) * (0.85 + 0.5 * noise(u * 40, v * 5))[..., None]


def blades(rng: np.random.Generator, colour: Colour, frequency: float = 30) -> Surface:
    """Grass: upright strokes over soft patches of a second tone."""
    strokes, patches = Noise(rng, rough=True), Noise(rng)
    other = vary(rng, colour, 0.07)

    def surface(u: Array, v: Array) -> Array:
        weight = np.clip(0.5 + patches(u * frequency / 9, v * frequency / 9), 0, 1)
        return mix(colour, other, weight) * (1 + 0.42 * strokes(u * frequency, v * frequency / 3))[..., None]

    return surface


def rows_of_crop(rng: np.random.Generator, plant: Colour, soil: Colour, count: float, slope: float) -> Surface:
    """Furrows: rows of plants that alternate with bare soil."""
    noise = Noise(rng, rough=True)

    def surface(u: Array, v: Array) -> Array:
        phase = (u + slope * v) * count + 0.25 * noise(u * 12, v * 12)
        weight = 0.5 + 0.5 * np.sin(2 * np.pi * phase)
        return mix(soil, plant, weight) * (1 + 0.25 * noise(u * 30, v * 30))[..., None]

    return surface


def grains(rng: np.random.Generator, colour: Colour, frequency: float = 60, contrast: float = 0.2) -> Surface:
    """Asphalt: fine grains, wear at larger scale."""
    fine, wear = Noise(rng), Noise(rng, rough=True)
    return lambda u, v: (
        rgb(colour)
        * (1 + contrast * fine(u * frequency, v * frequency) + 0.12 * wear(u * 3, v * 3))[..., None]
    )


def wavelets(rng: np.random.Generator, colour: Colour, frequency: float, contrast: float = 0.3) -> Surface:
    """Sea: short horizontal crests that are lighter than the troughs."""
    noise, swell = Noise(rng, rough=True), Noise(rng)
    crest = vary(rng, (colour[0] * 0.6 + 0.4, colour[1] * 0.6 + 0.4, colour[2] * 0.6 + 0.4), 0.03)

    def surface(u: Array, v: Array) -> Array:
        height = noise(u * frequency / 3, v * frequency) + 0.5 * swell(u * frequency / 12, v * frequency / 5)
        return mix(darker(colour, 0.8), crest, np.clip(0.25 + contrast * 1.6 * height, 0, 1))

    return surface


def mirror(rng: np.random.Generator, colour: Colour) -> Surface:
    """Still water: long soft vertical reflections and few ripples."""
    reflection, ripple = Noise(rng), Noise(rng)
    other = vary(rng, darker(colour, 0.7), 0.05)

    def surface(u: Array, v: Array) -> Array:
        weight = np.clip(0.5 + 0.7 * reflection(u * 7, v * 1.2), 0, 1)
        line = ripple(u * 2, v * 16) > 0.72
        return mix(colour, other, weight) * (1 + 0.22 * line)[..., None]

    return surface


def billows(rng: np.random.Generator, light: Colour, shade: Colour, frequency: float) -> Surface:
    """Cloud: round lit tops over a shaded base."""
    noise = Noise(rng, rough=True)

    def surface(u: Array, v: Array) -> Array:
        bump = noise(u * frequency, v * frequency)
        lit = bump - noise(u * frequency, v * frequency + 0.35)
        return mix(light, shade, np.clip(0.4 + 0.35 * v - 0.8 * lit - 0.2 * bump, 0, 1))

    return surface


def gradient(rng: np.random.Generator, top: Colour, bottom: Colour, ripple: float = 0.03) -> Surface:
    """Blend from ``top`` at v = 0 to ``bottom`` at v = 1, with faint bands."""
    noise = Noise(rng)
    return lambda u, v: mix(top, bottom, np.clip(v + ripple * noise(u * 2, v * 6), 0, 1))


def sheen(rng: np.random.Generator, colour: Colour, strength: float = 0.5, angle: float | None = None) -> Surface:
    """Painted metal and panes: a smooth colour with oblique bright bands."""
    direction = float(rng.uniform(-0.8, 0.8)) if angle is None else angle
    phase, count = float(rng.random()), float(rng.uniform(1.0, 2.2))

    def surface(u: Array, v: Array) -> Array:
        band = np.clip(np.sin(2 * np.pi * ((v + direction * u) * count + phase)), 0, 1) ** 3
        return mix(darker(colour, 0.9), (1.0, 1.0, 1.0), strength * band)

    return surface
