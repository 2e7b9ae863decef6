"""Draw a scene that moves: the camera pans, cars and boats go their way, and the flow is known.

A sequence is made of layers: the scene as `omh_mmseg.datasets.scenes` draws it, and each moving object. A layer is
drawn once, on a larger field of pixels, and moves by whole pixels per frame: what a frame shows of it is a cut of the
field, so that images, labels and flow fit each other exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omh_mmseg.datasets.scenes import objects
from omh_mmseg.datasets.scenes.canvas import Array, Canvas
from omh_mmseg.datasets.scenes.compose import HORIZONS, IMAGE_SIZE, SCENE_KINDS, SPLITS, Scene
from omh_mmseg.datasets.scenes.textures import rgb
from omh_mmseg.structures.labels import IGNORED_LABEL

PURPOSE = 25
"""Keeps the random numbers apart from those of the scenes that stand still."""
MOVING = (objects.car, objects.boat)
FASTEST_PAN, FASTEST_OBJECT = 3, 4
"""Pixels per frame, to each side, and down by the camera."""
LIGHTS = ((1.0, 1.0, 1.0), (1.06, 0.96, 0.86), (0.87, 0.92, 1.02), (0.97, 0.88, 0.89))


@dataclass(frozen=True)
class Layer:
    """What moves as one.

    Attributes:
        colour: (H, W, 3) on the field, in 0..1, times ``cover``.
        cover: Share of each pixel that the layer covers, (H, W).
        parts: Part labels (H, W), uint8; 255 where the layer has nothing.
        velocity: Of its picture, in pixels per frame to the right and down.
    """

    colour: Array
    cover: Array
    parts: Array
    velocity: tuple[int, int]


@dataclass(frozen=True)
class MovingPicture:
    """A drawn sequence.

    Attributes:
        images: (T, 128, 128, 3), uint8, RGB.
        parts: (T, 128, 128), uint8.
        layers: Which layer each pixel shows, likewise; 0 is the scene.
        velocities: (L, 2), int64, pixels per frame to the right and down of each layer's picture.
    """

    images: np.ndarray
    parts: np.ndarray
    layers: np.ndarray
    velocities: np.ndarray


def layer_flow(layers: np.ndarray, velocities: np.ndarray, frames: int) -> np.ndarray:
    """Flow (2, H, W), float32, of a frame to the one so many frames later (below 0: earlier).

    Args:
        layers: Layer of each pixel of the frame, (H, W).
        velocities: See `MovingPicture`.
        frames: Distance.
    """
    return (velocities[layers] * frames).transpose(2, 0, 1).astype(np.float32)


def draw_moving_picture(seed: int, split: str, index: int, frames: int) -> MovingPicture:
    """Draw a sequence; the result depends on the arguments alone, and a longer one is another one.

    Args:
        seed: Seed of the whole set.
        split: ``'train'`` or ``'val'``; the two never share random numbers.
        index: Number of the sequence in its split.
        frames: T.

    Raises:
        ValueError: Unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f'split is {split!r}, but demo scenes have {" and ".join(map(repr, SPLITS))}')
    rng = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, SPLITS.index(split), index, frames, PURPOSE]))
    )
    scene = Scene(rng)
    kind = list(SCENE_KINDS)[rng.integers(len(SCENE_KINDS))]
    if kind in HORIZONS:
        scene.horizon = float(rng.uniform(*HORIZONS[kind])) * scene.canvas.size
    scene.sky()
    scene.land()
    SCENE_KINDS[kind](scene)
    standing = scene._standing
    movers = sorted((entry for entry in standing if entry[1] in MOVING), key=lambda entry: entry[0])
    scene._standing = [entry for entry in standing if entry[1] not in MOVING]
    scene.finish()
    sprites = []
    for _, draw, frame in movers:
        sprite = Canvas(scene.canvas.size)
        draw(sprite, frame, rng)
        sprites.append((sprite, (int(rng.choice([-1, 1]) * rng.integers(1, FASTEST_OBJECT + 1)), 0)))
    pan = (int(rng.integers(-FASTEST_PAN, FASTEST_PAN + 1)), int(rng.integers(-1, 2)))
    return _film(_layers(scene.canvas, sprites, pan, frames, rng), frames, rng)


def _layers(
    canvas: Canvas,
    sprites: list[tuple[Canvas, tuple[int, int]]],
    pan: tuple[int, int],
    frames: int,
    rng: np.random.Generator,
) -> list[Layer]:
    """All layers on a field that every frame is cut from: the camera sees a part of the canvas, a little turned."""
    margins = [(abs(pan[0]) * (frames - 1), abs(pan[1]) * (frames - 1))]
    for _, own in sprites:
        margins.append((abs(pan[0] - own[0]) * (frames - 1), abs(pan[1] - own[1]) * (frames - 1)))
    angle = float(np.clip(rng.normal(0, 0.05), -0.1, 0.1))
    turned = float(abs(np.cos(angle)) + abs(np.sin(angle)))
    # So large a part that the pan stays on the canvas.
    most = (IMAGE_SIZE / (IMAGE_SIZE + max(margins[0]))) / turned
    zoom = rng.uniform(0.75, 0.97) * min(most, 0.86)
    slack = max(0.0, (1 - zoom / most) / 2 * 0.8)
    centre = (0.5 + rng.uniform(-slack, slack, 2)) * canvas.size
    mirrored = -1 if rng.random() < 0.5 else 1
    layers = []
    velocities = [(0, 0), *(velocity for _, velocity in sprites)]
    for source, margin, own in zip([canvas, *(sprite for sprite, _ in sprites)], margins, velocities):
        field = tuple(2 * (IMAGE_SIZE + side) for side in margin)  # sampled twice as finely as the pixels
        columns, rows = (((np.arange(side) + 0.5) / 2 - side / 4) / IMAGE_SIZE for side in field)
        columns, rows = columns[None, :] * mirrored, rows[:, None]
        x = centre[0] + (np.cos(angle) * columns - np.sin(angle) * rows) * zoom * canvas.size
        y = centre[1] + (np.sin(angle) * columns + np.cos(angle) * rows) * zoom * canvas.size
        there = (x >= 0) & (x < canvas.size) & (y >= 0) & (y < canvas.size)
        x, y = (np.clip(place, 0, canvas.size - 1).astype(np.int64) for place in (x, y))
        if source is canvas:
            there = np.ones_like(there)
        else:
            there &= source.parts[y, x] != IGNORED_LABEL
        parts = np.where(there, source.parts[y, x], IGNORED_LABEL).astype(np.uint8)[::2, ::2]
        velocity = (own[0] - pan[0], own[1] - pan[1])
        layers.append(Layer(_halved(source.colour[y, x] * there[..., None]), _halved(there * 1.0), parts, velocity))
    return layers


def _film(layers: list[Layer], frames: int, rng: np.random.Generator) -> MovingPicture:
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32) / IMAGE_SIZE - 0.5
    slope = rng.normal(0, 0.1, 2)
    light = rgb(LIGHTS[rng.integers(len(LIGHTS))]) * rng.uniform(0.8, 1.12)
    haze, grey = rng.uniform(0, 0.15), rng.uniform(0.45, 0.75)
    noise = rng.uniform(0.004, 0.02)
    images, parts, shown = [], [], []
    for frame in range(frames):
        colour = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
        labels = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        numbers = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        for number, layer in enumerate(layers):
            cut = _cut(layer, frame, frames)
            colour = layer.colour[cut] + colour * (1 - layer.cover[cut])[..., None]
            there = layer.parts[cut] != IGNORED_LABEL
            labels = np.where(there, layer.parts[cut], labels)
            numbers = np.where(there, number, numbers).astype(np.uint8)
        colour = colour * light * (1 + slope[0] * columns + slope[1] * rows)[..., None]
        colour = colour * (1 - haze) + haze * grey + rng.normal(0, noise, colour.shape)
        images.append((np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8))
        parts.append(labels)
        shown.append(numbers)
    velocities = np.array([layer.velocity for layer in layers], np.int64)
    return MovingPicture(np.stack(images), np.stack(parts), np.stack(shown), velocities)


def _cut(layer: Layer, frame: int, frames: int) -> tuple[slice, slice]:
    """What a frame shows of a layer's field: its picture moves by its velocity, from the first frame to the last."""
    starts = []
    for speed in layer.velocity:
        # Half way through the sequence the middle of the field is seen.
        starts.append(-speed * frame if speed <= 0 else speed * (frames - 1 - frame))
    return slice(starts[1], starts[1] + IMAGE_SIZE), slice(starts[0], starts[0] + IMAGE_SIZE)


def _halved(values: Array) -> Array:
    """Means over two by two samples."""
    height, width = values.shape[0] // 2, values.shape[1] // 2
    return values.reshape(height, 2, width, 2, *values.shape[2:]).mean((1, 3)).astype(np.float32)
