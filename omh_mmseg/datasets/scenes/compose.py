"""Compose a scene: its kind decides what stands where; light, camera and sensor come last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from omh_mmseg.datasets.scenes import objects, palettes
from omh_mmseg.datasets.scenes.canvas import Array, Canvas, Frame, blob, ellipse, rectangle
from omh_mmseg.datasets.scenes.taxonomy import HIERARCHY, PART
from omh_mmseg.datasets.scenes.textures import (
    Noise,
    billows,
    blades,
    gradient,
    grains,
    leafy,
    mirror,
    mottled,
    pick,
    rgb,
    rows_of_crop,
    wavelets,
)

Generator = np.random.Generator

IMAGE_SIZE = 128
_OVERSAMPLING = 2
_CANVAS = 320
SPLITS = ('train', 'val')


class Scene:
    """A canvas with a horizon, and the land, water and sky laid out on it.

    Args:
        rng: Source of every choice.
    """

    def __init__(self, rng: Generator) -> None:
        self.rng = rng
        self.canvas = Canvas(_CANVAS)
        self.horizon = float(rng.uniform(0.18, 0.66)) * _CANVAS
        self.whole = Frame(0, 0, _CANVAS, _CANVAS)
        self.road_rows = (self.horizon, float(_CANVAS))
        self._standing: list[tuple[float, Callable[[Canvas, Frame, Generator], None], Frame]] = []

    def depth(self, y: float) -> float:
        """Relative size of things whose foot is at canvas row ``y``: 0 at the horizon, 1 at the bottom."""
        return float(np.clip((y - self.horizon) / (_CANVAS - self.horizon), 0, 1))

    def _perspective(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Canvas fractions to coordinates on the ground plane, so that surfaces get finer towards the horizon."""
        height = np.maximum(v - self.horizon / _CANVAS, 0) + 0.12
        return (u - 0.5) / height * 0.5, -0.25 / height

    def sky(self) -> None:
        """Air from the top to behind the horizon, and up to four banks of cloud."""
        rng, bottom = self.rng, self.horizon / _CANVAS + 0.02
        zenith, low = palettes.AIR[rng.integers(len(palettes.AIR))]
        air = gradient(rng, zenith, low)
        self.canvas.paint(
            self.whole, rectangle(0, 0, 1, bottom), PART['clear air'], lambda u, v: air(u, v / bottom)
        )
        light, shade = palettes.CLOUD[rng.integers(len(palettes.CLOUD))]
        for _ in range(int(rng.integers(0, 5))):
            width, height = rng.uniform(60, 190), rng.uniform(22, 60)
            place = Frame(rng.uniform(0, _CANVAS), rng.uniform(0, self.horizon), width, height)
            surface = billows(rng, light, shade, rng.uniform(2.5, 5))
            beneath = (self.horizon + 2 - place.y) / height

            def above(u: Array, v: Array, beneath: float = beneath) -> Array:
                return v < beneath

            for _ in range(int(rng.integers(2, 5))):
                u, v = rng.uniform(-0.4, 0.4), rng.uniform(-0.2, 0.2)
                puff = blob(rng, u, v, rng.uniform(0.5, 1), rng.uniform(0.5, 1), 0.14)
                self.canvas.paint(place, puff, PART['cloud'], surface, where=above)

    def _ground(self, points: Array, part: str, surface: objects.Surface) -> None:
        self.canvas.paint(
            self.whole, points, PART[part], lambda u, v: surface(*self._perspective(u, v))
        )

    def land(self) -> None:
        """Grass down from the horizon."""
        rng, top = self.rng, self.horizon / _CANVAS
        self._ground(rectangle(0, top, 1, 1), 'grass', blades(rng, pick(rng, palettes.GRASS), rng.uniform(26, 40)))

    def crops(self) -> None:
        """One to three fields of crop."""
        rng, top = self.rng, self.horizon / _CANVAS
        for _ in range(int(rng.integers(1, 4))):
            near, far = sorted(rng.uniform(0, 1, 2))[::-1]
            left, right = sorted(rng.uniform(-0.4, 1.4, 2))
            if near - far < 0.2 or right - left < 0.4:
                far, near, left, right = 0.1, 0.8, left, left + 0.7
            upper, lower = top + (1 - top) * far**1.5, top + (1 - top) * near
            shift = rng.uniform(-0.15, 0.15)
            bed = np.array([(left + shift, upper), (right + shift * 0.6, upper), (right, lower), (left - 0.1, lower)])
            plant, soil = pick(rng, palettes.CROP), pick(rng, palettes.SOIL)
            rows = rows_of_crop(rng, plant, soil, rng.uniform(7, 14), rng.normal(0, 0.8))
            self._ground(bed, 'crop', rows)

    def road(self, along: bool) -> None:
        """A road towards the horizon, or (``along``) across the picture, with markings."""
        rng, top = self.rng, self.horizon / _CANVAS
        asphalt = grains(rng, pick(rng, palettes.ASPHALT), rng.uniform(50, 70))
        paint = mottled(rng, pick(rng, palettes.MARKING), 20, 0.2)
        if along:
            upper = top + (1 - top) * rng.uniform(0.1, 0.45)
            lower = min(upper + (1 - top) * rng.uniform(0.35, 0.6), 1.0)
            tilt = rng.normal(0, 0.03)
            corners = np.array([(0, upper + tilt), (1, upper - tilt), (1, lower - tilt), (0, lower + tilt)])
            self._ground(corners, 'asphalt', asphalt)
            middle, thick = upper * 0.55 + lower * 0.45, (lower - upper) * 0.09
            gap, shift = rng.uniform(0.16, 0.3), rng.random()
            lean = np.array([(0, tilt), (0, -tilt), (0, -tilt), (0, tilt)])
            line = rectangle(0, middle - thick, 1, middle + thick) + lean
            self.canvas.paint(self.whole, line, PART['marking'], paint, where=lambda u, v: (u / gap + shift) % 1 < 0.6)
            self.road_rows = ((upper + 0.04) * _CANVAS, (lower + 0.02) * _CANVAS)
            return
        vanish, foot = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)
        half = rng.uniform(0.35, 0.75)
        lane = np.array([(vanish - 0.02, top), (vanish + 0.02, top), (foot + half, 1), (foot - half, 1)])
        self._ground(lane, 'asphalt', asphalt)
        for offset, dashed in ((0.0, True), (-0.85, False), (0.85, False)):
            if not dashed and rng.random() < 0.4:
                continue
            centre, thick = foot + offset * half, half * 0.09
            start = vanish + offset * 0.02
            line = np.array([(start - 0.003, top), (start + 0.003, top), (centre + thick, 1), (centre - thick, 1)])
            shift, rate = rng.random(), rng.uniform(1.5, 3)

            def dash(u: Array, v: Array, dashed: bool = dashed, shift: float = shift, rate: float = rate) -> Array:
                return (not dashed) | ((rate * self._perspective(u, v)[1] * 4 + shift) % 1 < 0.6)

            self.canvas.paint(self.whole, line, PART['marking'], paint, where=dash)
        self.road_rows = (self.horizon + 0.35 * (_CANVAS - self.horizon), float(_CANVAS))

    def sea(self) -> float:
        """Sea from the horizon to a shore with surf; returns the shore's canvas row."""
        rng, top = self.rng, self.horizon / _CANVAS
        reach = rng.uniform(0.35, 0.75)
        shore = top + (1 - top) * (reach if rng.random() < 0.5 else 1.2)
        columns = np.linspace(-0.1, 1.1, 24)
        wobble = Noise(rng)
        slope = rng.normal(0, 0.12)

        def line(level: float, amount: float) -> Array:
            return np.stack([columns, level + slope * (columns - 0.5) + amount * wobble(columns * 4, columns)], axis=1)

        def above(level: float, amount: float) -> Array:
            return np.concatenate([[(1.1, top), (-0.1, top)], line(level, amount)])

        water = pick(rng, palettes.WATER)
        foam = leafy(rng, (0.88, 0.9, 0.9), rng.uniform(8, 12), 0.15)
        self._ground(above(shore, 0.05), 'surf', foam)
        self._ground(above(shore - rng.uniform(0.04, 0.1), 0.05), 'waves', wavelets(rng, water, rng.uniform(10, 16)))
        for _ in range(int(rng.integers(0, 4))):
            level = top + (shore - top) * rng.uniform(0.3, 0.9)
            place = Frame(rng.uniform(0, 1) * _CANVAS, level * _CANVAS, rng.uniform(60, 160), rng.uniform(8, 18))
            if level < 0.98:
                self.canvas.paint(place, blob(rng, 0, 0, 1, 1, 0.2), PART['surf'], lambda u, v: foam(u, v / 4))
        return min(shore, 1.0) * _CANVAS

    def pond(self) -> tuple[float, float, float]:
        """A pond with lily pads on the land; returns its centre column, row and width in canvas pixels."""
        rng = self.rng
        room = _CANVAS - self.horizon
        height = room * rng.uniform(0.45, 0.85)
        row = min(self.horizon + room * rng.uniform(0.35, 0.75), _CANVAS - height * 0.3)
        row = max(row, self.horizon + height / 2 + 3)
        width = rng.uniform(0.6, 1.3) * _CANVAS
        place = Frame(rng.uniform(0.25, 0.75) * _CANVAS, row, width, height)
        shore = blob(rng, 0, 0, 1, 1, 0.08)
        shore[:, 1] = np.maximum(shore[:, 1], (self.horizon + 3 - row) / height)
        self.canvas.shade(place, shore * 1.06, 0.7)
        self.canvas.paint(place, shore, PART['still water'], mirror(rng, pick(rng, palettes.WATER)))
        pad_colour = pick(rng, palettes.LILY)
        for _ in range(int(rng.integers(2, 6))):
            u, v = rng.uniform(-0.33, 0.33), rng.uniform(-0.28, 0.3)
            size = rng.uniform(28, 56) * (0.6 + 0.7 * self.depth(row + v * height))
            for _ in range(int(rng.integers(2, 6))):
                across = u * width + rng.normal(0, size * 0.55)
                down = v * height + rng.normal(0, size * 0.22)
                if abs(across) > 0.42 * width or abs(down) > 0.4 * height or row + down < self.horizon + 8:
                    continue
                leaf = Frame(place.x + across, row + down, size, size * 0.45)
                disc = ellipse(0, 0, 1, 1, 20)
                disc[int(rng.uniform(0, 2 * np.pi) * 3)] = 0
                self.canvas.shade(leaf, disc * 1.15 + (0.03, 0.08), 0.6)
                self.canvas.paint(leaf, disc, PART['lily pads'], mottled(rng, pad_colour, 8, 0.25))
        return place.x, row, width

    def stand(
        self,
        draw: Callable[[Canvas, Frame, Generator], None],
        rows: tuple[float, float],
        size: tuple[float, float],
        count: tuple[int, int],
        steady: bool = True,
    ) -> None:
        """Place objects with their feet between two canvas rows; nearer ones are larger and drawn later.

        Args:
            draw: Function that draws one object.
            rows: Canvas rows of the foot, far and near.
            size: Object height in canvas pixels at the horizon and at the bottom.
            count: Least and largest number.
            steady: Keep upright; otherwise rotate a little.
        """
        rng = self.rng
        for _ in range(int(rng.integers(count[0], count[1] + 1))):
            row = rng.uniform(min(rows), max(rows))
            near = self.depth(row)
            height = (size[0] + (size[1] - size[0]) * near) * rng.uniform(0.75, 1.3)
            width = height * rng.uniform(0.85, 1.2) * rng.choice([-1, 1])
            tilt = rng.normal(0, 0.02 if steady else 0.12)
            frame = Frame(rng.uniform(-0.05, 1.05) * _CANVAS, row, width, height, tilt, rng.normal(0, 0.06))
            self._standing.append((row, draw, frame))

    def finish(self) -> None:
        """Draw what stands in the scene from far to near, each with its cast shadow."""
        side = self.rng.choice([-1, 1]) * self.rng.uniform(0.3, 0.9)
        strength = self.rng.uniform(0.5, 0.85)
        for _, draw, frame in sorted(self._standing, key=lambda entry: entry[0]):
            if draw is not objects.boat:
                reach = abs(frame.height) * 0.45
                shadow = Frame(frame.x, frame.y, reach, reach)
                self.canvas.shade(shadow, ellipse(side * 0.8, 0.0, 2.1, 0.42), strength)
            draw(self.canvas, frame, self.rng)
        self._standing.clear()


def _city(scene: Scene) -> None:
    rng, top = scene.rng, scene.horizon
    scene.road(along=bool(rng.random() < 0.5))
    scene.stand(objects.tower, (top + 2, top + 22), (110, 210), (1, 5))
    scene.stand(objects.house, (top + 8, top + 40), (60, 120), (0, 2))
    scene.stand(objects.tree, (top + 10, top + 60), (50, 130), (0, 2))
    scene.stand(objects.car, scene.road_rows, (28, 80), (1, 3))


def _countryside(scene: Scene) -> None:
    rng, top = scene.rng, scene.horizon
    scene.crops()
    if rng.random() < 0.35:
        scene.road(along=False)
        scene.stand(objects.car, scene.road_rows, (24, 70), (0, 2))
    scene.stand(objects.house, (top + 6, top + 70), (55, 150), (1, 2))
    scene.stand(objects.tree, (top + 2, _CANVAS - 30), (50, 210), (1, 5), steady=False)
    scene.stand(objects.bush, (top + 10, _CANVAS - 5), (22, 75), (0, 3))


def _coast(scene: Scene) -> None:
    top = scene.horizon
    shore = scene.sea()
    scene.stand(objects.boat, (top + 10, max(shore - 12, top + 20)), (50, 190), (1, 4), steady=False)
    if shore < _CANVAS - 30:
        scene.stand(objects.bush, (shore + 10, _CANVAS), (24, 80), (0, 3))
        scene.stand(objects.tree, (shore + 5, _CANVAS), (60, 180), (0, 1), steady=False)
        scene.stand(objects.house, (shore + 5, shore + 40), (60, 150), (0, 1))


def _park(scene: Scene) -> None:
    top = scene.horizon
    _, row, _ = scene.pond()
    scene.stand(objects.boat, (row - 5, row + 25), (40, 150), (0, 1))
    scene.stand(objects.tree, (top + 2, top + 40), (60, 160), (1, 4), steady=False)
    scene.stand(objects.bush, (top + 4, top + 40), (26, 60), (0, 3))
    scene.stand(objects.bush, (_CANVAS - 40, _CANVAS + 10), (40, 90), (0, 2))
    if scene.rng.random() < 0.4:
        scene.stand(objects.house, (top + 2, top + 20), (60, 130), (1, 1))


def _street(scene: Scene) -> None:
    rng = scene.rng
    scene.road(along=True)
    far, near = scene.road_rows
    scene.stand(objects.house if rng.random() < 0.6 else objects.tower, (scene.horizon + 2, far), (130, 260), (1, 3))
    scene.stand(objects.bush, (scene.horizon + 10, far + 5), (26, 60), (0, 3))
    scene.stand(objects.tree, (scene.horizon + 10, far), (90, 200), (0, 1))
    scene.stand(objects.car, (far * 0.5 + near * 0.5, near), (60, 115), (1, 2))


def _garden(scene: Scene) -> None:
    rng = scene.rng
    if rng.random() < 0.5:
        scene.crops()
    scene.stand(objects.house, (scene.horizon + 5, scene.horizon + 40), (190, 330), (1, 1))
    scene.stand(objects.bush, (scene.horizon + 35, _CANVAS), (50, 115), (1, 4))
    scene.stand(objects.tree, (scene.horizon + 30, _CANVAS), (130, 280), (0, 2), steady=False)


def _harbour(scene: Scene) -> None:
    rng, top = scene.rng, scene.horizon
    shore = scene.sea()
    scene.stand(objects.tower, (top + 1, top + 6), (70, 110), (0, 4))
    scene.stand(objects.house, (top + 1, top + 6), (40, 70), (0, 3))
    scene.stand(objects.boat, (top + 25, max(shore - 8, top + 40)), (70, 230), (1, 3), steady=False)
    if shore < _CANVAS - 60 and rng.random() < 0.7:
        scene.stand(objects.car, (shore + 30, _CANVAS), (30, 90), (1, 2))


SCENE_KINDS: dict[str, Callable[[Scene], None]] = {
    'city': _city,
    'countryside': _countryside,
    'coast': _coast,
    'park': _park,
    'street': _street,
    'garden': _garden,
    'harbour': _harbour,
}
HORIZONS = {'street': (0.35, 0.6), 'garden': (0.45, 0.7)}
"""Rows of the horizon, as shares of the canvas, of the scenes with a horizon of their own."""


def _photograph(canvas: Canvas, rng: Generator) -> tuple[Array, Array]:
    """View the canvas through a tilted camera under coloured light and sensor noise; see :func:`draw_scene`."""
    side = IMAGE_SIZE * _OVERSAMPLING
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
    angle, zoom = rng.normal(0, 0.07), rng.uniform(0.62, 0.86)
    keystone_x, keystone_y = rng.normal(0, 0.1, 2)
    slack = (1 - zoom) / 2 * 0.8
    centre_x, centre_y = 0.5 + rng.uniform(-slack, slack, 2)
    scale = zoom / (1 + keystone_x * columns + keystone_y * rows)
    cos, sin = np.cos(angle), np.sin(angle)
    x = (centre_x + (cos * columns - sin * rows) * scale) * canvas.size
    y = (centre_y + (sin * columns + cos * rows) * scale) * canvas.size
    x, y = (np.clip(position, 0, canvas.size - 1).astype(np.int64) for position in (x, y))
    if rng.random() < 0.5:
        x, y = x[:, ::-1], y[:, ::-1]
    colour, parts = canvas.colour[y, x], canvas.parts[y[::2, ::2], x[::2, ::2]]

    colour = colour.reshape(IMAGE_SIZE, 2, IMAGE_SIZE, 2, 3).mean((1, 3))
    shadow = Noise(rng)(rows[::2, ::2] * 4, columns[::2, ::2] * 4)
    if rng.random() < 0.5:
        # Shadows of passing clouds fall on everything but the sky.
        is_sky = HIERARCHY.group_of_part[parts] == HIERARCHY.names['group'].index('sky')
        colour *= np.where(is_sky, 1, 1 - 0.35 * np.clip(shadow * 6 - 1, 0, 1))[..., None]
    kind = rng.integers(4)
    light = [(1.0, 1.0, 1.0), (1.06, 0.96, 0.86), (0.87, 0.92, 1.02), (0.97, 0.88, 0.89)][kind]
    slope = rng.normal(0, 0.1, 2)
    level = rng.uniform(0.8, 1.12) * (1 + slope[0] * columns[::2, ::2] + slope[1] * rows[::2, ::2])
    colour = colour * rgb(light) * level[..., None]
    haze = rng.uniform(0, 0.15)
    colour = colour * (1 - haze) + haze * rng.uniform(0.45, 0.75)
    colour += rng.normal(0, rng.uniform(0.004, 0.02), colour.shape)
    return (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8), parts


def draw_scene(seed: int, split: str, index: int) -> tuple[Array, Array]:
    """Draw one scene; the result depends on the arguments alone.

    Args:
        seed: Seed of the whole set.
        split: ``'train'`` or ``'val'``; the two never share random numbers.
        index: Number of the image in its split.

    Returns:
        RGB image ``(128, 128, 3)`` uint8 and part labels ``(128, 128)`` uint8 in 0..23.

    Raises:
        ValueError: Unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f'split is {split!r}, but demo scenes have {" and ".join(map(repr, SPLITS))}')
    sequence = np.random.SeedSequence([seed, SPLITS.index(split), index])
    rng = np.random.Generator(np.random.PCG64(sequence))
    scene = Scene(rng)
    kind = list(SCENE_KINDS)[rng.integers(len(SCENE_KINDS))]
    if kind in HORIZONS:
        scene.horizon = float(rng.uniform(*HORIZONS[kind])) * _CANVAS
    scene.sky()
    scene.land()
    SCENE_KINDS[kind](scene)
    scene.finish()
    return _photograph(scene.canvas, rng)
