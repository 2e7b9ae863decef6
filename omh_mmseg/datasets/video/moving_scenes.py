"""The demo scenes in motion: short sequences with known labels and known flow."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omh_mmseg.datasets.base import data_item
from omh_mmseg.datasets.demo_scenes import DEFAULT_SEED, DemoScenes
from omh_mmseg.datasets.scenes.store import drawing_stamp, prepare_drawn
from omh_mmseg.datasets.video import moving_picture
from omh_mmseg.datasets.video.moving_picture import draw_moving_picture, layer_flow
from omh_mmseg.datasets.video.sequences import FrameInfo
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.checks import STEPS, ranges
from omh_mmseg.utils.files import replaced_when_complete

DEFAULT_ROOT = 'data/moving_scenes'
DEFAULT_SEQUENCES = dict(train=40, val=10)
FRAMES = 8
FPS = 10.0


@DATASETS.register_module()
class MovingScenes(DemoScenes):
    """Sequences of drawn scenes of 128 x 128 pixels at 10 frames per second, with the labels of `DemoScenes`.

    The camera pans, cars and boats move, all by whole pixels per frame, so that labels and flow fit the images exactly
    (`omh_mmseg.datasets.video.moving_picture`). They are drawn on first use and depend on the arguments alone.

    Args:
        split: ``'train'`` or ``'val'``.
        level: ``'group'`` (6 classes), ``'object'`` (12) or ``'part'`` (24).
        data_root: Folder of the set; made if it does not exist.
        seed: Seed of the whole set.
        sequences: Number of sequences per split.
        frames: Of each sequence.
        **kwargs: As for `DemoScenes`, but ``counts``.

    Raises:
        ValueError: See `DemoScenes`.
        FileExistsError: Likewise.
        OSError: Likewise.
    """

    @ranges(seed=STEPS, sequences='[1, 1000000]', frames='[2, 10000]')
    def __init__(
        self,
        split: str = 'train',
        level: str = 'group',
        data_root: str = DEFAULT_ROOT,
        seed: int = DEFAULT_SEED,
        sequences: dict[str, int] | None = None,
        frames: int = FRAMES,
        **kwargs: Any,
    ) -> None:
        self.frames = frames
        counts = dict(DEFAULT_SEQUENCES if sequences is None else sequences)
        super().__init__(split, level, data_root, seed, counts, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Draw the sequences if they are missing, then list their frames."""
        counts = {split: number * self.frames for split, number in self.counts.items()}
        stamp = drawing_stamp(self.seed, counts)
        source = Path(moving_picture.__file__).read_bytes().replace(b'\r\n', b'\n')
        stamp |= dict(frames=self.frames, motion=hashlib.sha256(source).hexdigest()[:16])
        draw = partial(_write_sequence, seed=self.seed, frames=self.frames)
        root = prepare_drawn(self.data_root, stamp, draw, self.counts)
        items = []
        for sequence in range(self.counts[self.split]):
            for frame in range(self.frames):
                name = f'{sequence:05d}_{frame:04d}.png'
                place = FrameInfo(f'{sequence:05d}', frame, frame, frame / FPS)
                item = data_item(str(root / 'images' / self.split / name), str(root / 'parts' / self.split / name))
                items.append(item | place.as_info())
        return items

    def exact_flow(self, frame: int, other: int) -> np.ndarray:
        """Flow (2, 128, 128), float32, of an item to another one of its sequence, see `omh_mmseg.flow.warping`.

        Raises:
            ValueError: They are of two sequences.
        """
        here, there = self.get_data_info(frame), self.get_data_info(other)
        if here['sequence'] != there['sequence']:
            raise ValueError(f'{here["img_path"]} and {there["img_path"]} are frames of two sequences')
        path = Path(here['img_path'])
        folder = Path(self.data_root) / 'layers' / self.split
        with Image.open(folder / path.name) as image:
            layers = np.asarray(image)
        velocities = json.loads((folder / f'{here["sequence"]}.json').read_text())
        return layer_flow(layers, np.array(velocities), there['frame'] - here['frame'])


def _write_sequence(folder: Path, split: str, index: int, seed: int, frames: int) -> None:
    drawn = draw_moving_picture(seed, split, index, frames)
    layers = folder / 'layers' / split
    layers.mkdir(parents=True, exist_ok=True)
    for frame in range(frames):
        name = f'{index:05d}_{frame:04d}.png'
        for kind, maps in (('images', drawn.images), ('parts', drawn.parts), ('layers', drawn.layers)):
            Image.fromarray(maps[frame]).save(folder / kind / split / name)
    with replaced_when_complete(layers / f'{index:05d}.json') as file:
        file.write(json.dumps(drawn.velocities.tolist()).encode())
