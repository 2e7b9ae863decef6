"""The picture under construction: colour and part label per pixel, painted polygon by polygon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from omh_mmseg.datasets.scenes.textures import Array, Surface
from omh_mmseg.structures.labels import IGNORED_LABEL


@dataclass(frozen=True)
class Frame:
    """Where an object stands: maps object coordinates to canvas pixels.

    Objects are drawn around the origin, ``u`` to the right and ``v`` downwards, standing on ``v = 0`` and reaching
    up to about ``v = -1``.

    Args:
        x: Canvas column of the object's origin.
        y: Canvas row of the object's origin.
        width: Pixels per unit of ``u``; negative mirrors the object.
        height: Pixels per unit of ``v``.
        angle: Rotation in radians.
        shear: Shift along ``u`` per unit of ``v`` (a view from the side).
    """

    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0
    shear: float = 0.0

    def _matrix(self) -> Array:
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        scale = np.array([[self.width, self.shear * self.height], [0.0, self.height]])
        return np.array([[cos, -sin], [sin, cos]]) @ scale

    def to_canvas(self, points: Array) -> Array:
        """Object coordinates ``(n, 2)`` to canvas ``(x, y)``, shape ``(n, 2)``."""
        return points @ self._matrix().T + (self.x, self.y)

    def to_object(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Canvas coordinates (equal shapes) to object coordinates of that shape."""
        (a, b), (c, d) = np.linalg.inv(self._matrix()).astype(np.float32)
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        return a * dx + b * dy, c * dx + d * dy


class Canvas:
    """Colour ``(size, size, 3)`` float32 in 0..1 and part labels ``(size, size)`` uint8.

    Args:
        size: Side length in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.colour = np.zeros((size, size, 3), np.float32)
        self.parts = np.full((size, size), IGNORED_LABEL, np.uint8)
        self.rows, self.columns = np.mgrid[:size, :size].astype(np.float32)

    def _region(self, frame: Frame, points: Array) -> tuple[tuple[slice, slice], Array] | None:
        corners = frame.to_canvas(np.asarray(points, float))
        left, top = np.maximum(np.floor(corners.min(0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(corners.max(0)) + 1, self.size).astype(int)
        if right <= left or bottom <= top:
            return None
        stencil = Image.new('1', (int(right - left), int(bottom - top)))
        ImageDraw.Draw(stencil).polygon([tuple(p) for p in (corners - (left, top)).tolist()], fill=1)
        return (slice(top, bottom), slice(left, right)), np.asarray(stencil)

    def paint(
        self, frame: Frame, points: Array, part: int | None, surface: Surface, where: Surface | None = None
    ) -> None:
        """Paint a polygon.

        Args:
            frame: Place of the object.
            points: Corners in object coordinates, ``(n, 2)``.
            part: Part label; None keeps the labels (clutter that belongs to what is behind it).
            surface: Colour as a function of object coordinates.
            where: Boolean function of object coordinates that limits the polygon.
        """
        region = self._region(frame, points)
        if region is None:
            return
        box, mask = region
        u, v = frame.to_object(self.columns[box], self.rows[box])
        if where is not None:
            mask = mask & where(u, v)
        inside = np.nonzero(mask)
        if not len(inside[0]):
            return
        self.colour[box][inside] = surface(u[inside], v[inside])
        if part is not None:
            self.parts[box][inside] = part

    def shade(self, frame: Frame, points: Array, factor: float) -> None:
        """Scale the brightness inside a polygon: shadows and highlights."""
        region = self._region(frame, points)
        if region is not None:
            box, mask = region
            self.colour[box][mask] *= np.float32(factor)


def rectangle(left: float, top: float, right: float, bottom: float) -> Array:
    """Corners of an upright rectangle, ``(4, 2)``."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def ellipse(u: float, v: float, width: float, height: float, corners: int = 28) -> Array:
    """Corners of an ellipse with centre ``(u, v)`` and full axes ``width`` and ``height``."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([u + width / 2 * np.cos(angle), v + height / 2 * np.sin(angle)], axis=1)


def blob(
    rng: np.random.Generator, u: float, v: float, width: float, height: float, roughness: float = 0.15
) -> Array:
    """An ellipse with an irregular outline, for crowns, clouds and shores."""
    outline = ellipse(u, v, width, height, corners=36)
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    radius = np.ones(36)
    for waves in range(2, 9):
        radius += roughness / np.sqrt(waves) * rng.normal() * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    return (outline - (u, v)) * np.clip(radius, 0.5, 1.5)[:, None] + (u, v)
