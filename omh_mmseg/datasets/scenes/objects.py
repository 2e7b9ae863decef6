"""Things that stand in a scene. Each function draws one object in a frame and varies shape, colour and surface."""

from __future__ import annotations

import numpy as np

from omh_mmseg.datasets.scenes import palettes
from omh_mmseg.datasets.scenes.canvas import Canvas, Frame, blob, ellipse, rectangle
from omh_mmseg.datasets.scenes.taxonomy import PART
from omh_mmseg.datasets.scenes.textures import (
    Surface,
    bark,
    brick,
    darker,
    leafy,
    mottled,
    pick,
    rgb,
    roof_tiles,
    sheen,
    stripes,
    vary,
)

Generator = np.random.Generator


def _wall(rng: Generator) -> Surface:
    colour = pick(rng, palettes.WALL)
    kind = rng.integers(4)
    if kind == 0:
        return brick(rng, colour, rows=rng.uniform(10, 16))
    if kind == 1:
        return stripes(rng, colour, darker(colour, 0.7), rng.uniform(9, 14), duty=0.75)
    if kind == 2:
        return stripes(rng, colour, darker(colour, 0.65), rng.uniform(8, 12), np.pi / 2, duty=0.8)
    return brick(rng, vary(rng, darker(colour, 0.9)), rows=rng.uniform(6, 9))


def house(canvas: Canvas, frame: Frame, rng: Generator) -> None:
    """Walls with windows and a door under a gabled or hipped roof, sometimes with a chimney."""
    half = rng.uniform(0.4, 0.7)
    eaves = -rng.uniform(0.5, 0.64)
    overhang = rng.uniform(0.03, 0.08)
    ridge = rng.choice([0.0, rng.uniform(0.3, 0.8)])
    canvas.paint(frame, rectangle(-half, eaves, half, 0), PART['wall'], _wall(rng))
    roof = np.array([
        (-half - overhang, eaves + 0.02),
        (-half * ridge, -1),
        (half * ridge, -1),
        (half + overhang, eaves + 0.02),
    ])
    tiles = roof_tiles(rng, pick(rng, palettes.ROOF), rng.uniform(8, 13))
    if rng.random() < 0.4:
        side = half * rng.uniform(0.3, 0.6)
        canvas.paint(frame, rectangle(side - 0.06, -1.08, side + 0.06, eaves), PART['roof'], tiles)
    canvas.paint(frame, roof, PART['roof'], tiles)
    canvas.shade(frame, rectangle(-half, eaves + 0.02, half, eaves + 0.07), 0.7)

    door = rng.uniform(-half * 0.6, half * 0.6)
    if rng.random() < 0.6:
        colour = pick(rng, palettes.ANY)
        boards = stripes(rng, colour, darker(colour, 0.7), 25)
        canvas.paint(frame, rectangle(door - 0.07, -0.27, door + 0.07, 0), PART['wall'], boards)
    columns, floors = int(rng.integers(2, 4)), int(rng.integers(1, 3)) if eaves < -0.55 else 1
    _windows(canvas, frame, rng, (-half, eaves + 0.07, half, -0.06), columns, floors, PART['window'])
    if rng.random() < 0.5:
        canvas.shade(frame, np.array([(half * 0.1, eaves), (half, eaves), (half, 0), (half * 0.4, 0)]), 0.72)


def _windows(
    canvas: Canvas,
    frame: Frame,
    rng: Generator,
    area: tuple[float, float, float, float],
    columns: int,
    floors: int,
    part: int,
    fill: tuple[float, float] = (0.45, 0.68),
) -> None:
    """Panes on a grid in ``area`` (left, top, right, bottom), with frames and crossbars."""
    left, top, right, bottom = area
    width, height = (right - left) / columns, (bottom - top) / floors
    glass = sheen(rng, pick(rng, palettes.GLASS), rng.uniform(0.3, 0.7))
    border = vary(rng, (0.85, 0.85, 0.83) if rng.random() < 0.6 else (0.25, 0.2, 0.18))
    half_width, half_height = width * rng.uniform(*fill) / 2, height * rng.uniform(*fill) / 2

    def pane(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        across = np.abs((u - left) % width - width / 2)
        down = np.abs((v - top) % height - height / 2)
        rim = (across > half_width * 0.82) | (down > half_height * 0.85) | (across < half_width * 0.09)
        return np.where(rim[..., None], rgb(border), glass(u * 2, v * 2))

    def inside(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        across = np.abs((u - left) % width - width / 2)
        down = np.abs((v - top) % height - height / 2)
        return (across < half_width) & (down < half_height)

    canvas.paint(frame, rectangle(left, top, right, bottom), part, pane, where=inside)


def tower(canvas: Canvas, frame: Frame, rng: Generator) -> None:
    """A tall block: facade of piers and storeys with large glass fronts."""
    half = rng.uniform(0.18, 0.3)
    colour = pick(rng, palettes.WALL)
    facade = stripes(rng, colour, darker(colour, 0.75), rng.uniform(18, 30), rng.choice([0, np.pi / 2]), duty=0.7)
    top = -1.0
    canvas.paint(frame, rectangle(-half, top, half, 0), PART['facade'], facade)
    if rng.random() < 0.5:
        canvas.paint(frame, rectangle(-half * 0.5, top - 0.08, half * 0.5, top), PART['facade'], facade)
    style = rng.integers(3)
    if style == 0:
        area, columns, floors, fill = (-half, top + 0.04, half, -0.05), 1, int(rng.integers(4, 8)), (0.8, 0.9)
    elif style == 1:
        area, columns, floors, fill = (-half, top + 0.04, half, -0.05), int(rng.integers(2, 4)), 1, (0.7, 0.92)
    else:
        area = (-half, top + 0.04, half, -0.05)
        columns, floors, fill = int(rng.integers(2, 4)), int(rng.integers(4, 7)), (0.7, 0.82)
    _windows(canvas, frame, rng, area, columns, floors, PART['glass front'], fill)
    canvas.shade(frame, rectangle(half * rng.uniform(0.0, 0.5), top, half, 0), rng.uniform(0.62, 0.85))


def tree(canvas: Canvas, frame: Frame, rng: Generator) -> None:
    """A trunk under a round, tall or conical crown."""
    colour = pick(rng, palettes.CROWN)
    trunk = rng.uniform(0.05, 0.105)
    split = -rng.uniform(0.3, 0.5)
    lean = rng.normal(0, 0.04)
    stem = np.array([(-trunk * 1.5, 0), (-trunk + lean, split - 0.2), (trunk + lean, split - 0.2), (trunk * 1.5, 0)])
    canvas.paint(frame, stem, PART['trunk'], bark(rng, pick(rng, palettes.BARK)))
    leaves = leafy(rng, colour, rng.uniform(9, 14))
    shape = rng.integers(3)
    width = rng.uniform(0.4, 0.75)
    if shape == 0:
        for tier in range(3):
            low, high = split + 0.04 - 0.2 * tier, split - 0.3 - 0.18 * tier
            reach = width * (0.55 - 0.13 * tier)
            branches = np.array([(-reach + lean, low), (lean, high), (reach + lean, low)])
            canvas.paint(frame, branches, PART['crown'], leaves)
            canvas.shade(frame, np.array([(lean, high), (reach + lean, low), (lean, low)]), 0.85)
    else:
        middle = (split - 1) / 2
        outline = blob(rng, lean, middle, width, 1 + split + 0.05, 0.1 if shape == 1 else 0.18)
        canvas.paint(frame, outline, PART['crown'], leaves)
        canvas.shade(frame, outline * (0.8, 0.5) + (lean * 0.2 + 0.05, split * 0.5 + 0.02), 0.82)


def bush(canvas: Canvas, frame: Frame, rng: Generator) -> None:
    """A low mound or hedge of small leaves with heads of blossom."""
    hedge = rng.random() < 0.3
    width = rng.uniform(1.2, 2.6) if hedge else rng.uniform(0.8, 1.5)
    if hedge:
        outline = rectangle(-width / 2, -0.8, width / 2, 0) + rng.normal(0, 0.03, (4, 2))
    else:
        outline = np.minimum(blob(rng, 0, -0.45, width, 1.0, 0.13), (np.inf, 0.03))
    leaves = leafy(rng, pick(rng, palettes.LEAVES), rng.uniform(13, 18), 0.35)
    canvas.paint(frame, outline, PART['leaves'], leaves)
    canvas.shade(frame, outline * (0.95, 0.4), 0.8)
    petals = leafy(rng, pick(rng, palettes.BLOSSOM), rng.uniform(16, 22), 0.2)
    for _ in range(int(rng.integers(2, 7))):
        reach = rng.uniform(0.18, 0.42)
        u, v = rng.uniform(-0.42, 0.42) * width * 0.85, rng.uniform(-0.75, -0.25)
        canvas.paint(frame, blob(rng, u, v, reach * 1.2, reach, 0.18), PART['blossom'], petals)


def car(canvas: Canvas, frame: Frame, rng: Generator) -> None:
    """A saloon, van or pick-up from the side; the frame's unit height is the height of the car."""
    length = rng.uniform(1.9, 2.7)
    half = length / 2
    paint = sheen(rng, pick(rng, palettes.PAINT), rng.uniform(0.25, 0.5), angle=0.1)
    glass = sheen(rng, pick(rng, palettes.GLASS), 0.6)
    canvas.shade(frame, ellipse(0, 0.0, length * 1.1, 0.25), 0.45)
    style = rng.integers(3)
    sill, belt = -0.16, -0.58
    if style == 0:
        cabin = [(-half * 0.62, belt), (-half * 0.4, -1), (half * 0.3, -1), (half * 0.58, belt)]
    elif style == 1:
        cabin = [(-half * 0.98, belt), (-half * 0.95, -1.02), (half * 0.45, -1.02), (half * 0.72, belt)]
    else:
        cabin = [(-half * 0.1, belt), (-half * 0.05, -1), (half * 0.42, -1), (half * 0.66, belt)]
    body = [(-half, sill), (-half * 0.98, belt + 0.02), *cabin, (half * 0.95, belt + 0.08), (half, sill)]
    canvas.paint(frame, np.array(body), PART['car body'], paint)
    centre = np.mean(cabin, axis=0)
    inner = (np.array(cabin) - centre) * (0.88, 0.78) + centre + (0, 0.02)
    pillar = rng.uniform(-0.1, 0.25) * half
    canvas.paint(frame, inner, PART['car window'], glass, where=lambda u, v: np.abs(u - pillar) > 0.035)
    for lamp in (-half * 0.96, half * 0.94):
        colour = (0.95, 0.9, 0.6) if lamp > 0 else (0.8, 0.15, 0.1)
        canvas.paint(frame, ellipse(lamp, belt + 0.16, 0.1, 0.12), PART['car body'], mottled(rng, colour))
    diameter = rng.uniform(0.4, 0.5)
    tyre, rim = vary(rng, (0.12, 0.12, 0.13), 0.02), vary(rng, (0.65, 0.65, 0.67))
    for position in (-half * 0.6, half * 0.6):
        canvas.shade(frame, ellipse(position, -diameter / 2, diameter * 1.2, diameter * 1.2), 0.5)
        canvas.paint(frame, ellipse(position, -diameter / 2, diameter, diameter), PART['wheel'], mottled(rng, tyre, 20))
        hub = ellipse(position, -diameter / 2, diameter * 0.55, diameter * 0.55)
        spokes = stripes(rng, rim, darker(rim, 0.5), 18, rng.uniform(0, 3))
        canvas.paint(frame, hub, PART['wheel'], spokes)


def boat(canvas: Canvas, frame: Frame, rng: Generator) -> None:
    """A hull of planks under one or two sails."""
    half = rng.uniform(0.35, 0.55)
    deck = -rng.uniform(0.2, 0.28)
    colour = pick(rng, palettes.PAINT)
    planks = stripes(rng, colour, darker(colour, 0.7), rng.uniform(18, 26), 0.05, duty=0.8)
    hull = np.array([(-half, deck), (half * 1.1, deck - 0.03), (half * 0.75, 0), (-half * 0.8, 0)])
    canvas.shade(frame, ellipse(0, 0.02, half * 2.2, 0.12), 0.6)
    mast = rng.uniform(-0.05, 0.1)
    canvas.paint(frame, rectangle(mast - 0.012, -1, mast + 0.012, deck), PART['hull'], mottled(rng, (0.35, 0.25, 0.18)))
    canvas.paint(frame, hull, PART['hull'], planks)
    canvas.paint(
        frame, np.array([(-half, deck), (half * 1.1, deck - 0.03), (half, deck + 0.02), (-half, deck + 0.05)]),
        PART['hull'], mottled(rng, vary(rng, (0.85, 0.82, 0.78))),
    )
    cloth = pick(rng, palettes.SAIL)
    second = cloth if rng.random() < 0.5 else pick(rng, palettes.SAIL)
    canvas_cloth = stripes(rng, cloth, darker(second, 0.88), rng.uniform(4, 8), rng.uniform(-0.3, 0.3), duty=0.6)
    main = np.array([(mast - 0.02, -0.97), (-half * 0.95, deck - 0.06), (mast - 0.02, deck - 0.05)])
    jib = np.array([(mast + 0.02, -0.9), (mast + 0.02, deck - 0.08), (half * 1.0, deck - 0.05)])
    if rng.random() < 0.25:
        main = np.array([(mast - 0.1, -0.95), (-half * 0.9, -0.8), (-half * 0.8, deck - 0.06), (mast, deck - 0.06)])
    canvas.paint(frame, main, PART['sail'], canvas_cloth)
    if rng.random() < 0.8:
        canvas.paint(frame, jib, PART['sail'], canvas_cloth)
    canvas.shade(frame, main * (0.5, 1) + (mast * 0.5, 0), 0.9)
