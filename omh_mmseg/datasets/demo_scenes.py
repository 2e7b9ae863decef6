"""The demo scenes: drawn pictures of small worlds with a known hierarchy of labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omh_mmseg.datasets.base import FileSegDataset, data_item
from omh_mmseg.datasets.scenes import HIERARCHY, LEVELS, SPLITS, draw_scene
from omh_mmseg.datasets.scenes.store import prepare_scenes
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.utils.checks import STEPS, ranges
from omh_mmseg.utils.files import replaced_when_complete

__all__ = ['HIERARCHY', 'DemoScenes', 'draw_examples']

DEFAULT_ROOT = 'data/demo_scenes'
DEFAULT_SEED = 2026
DEFAULT_COUNTS = dict(train=320, val=80)
EXAMPLES = 6


@DATASETS.register_module()
class DemoScenes(FileSegDataset):
    """Procedurally drawn scenes of 128 x 128 pixels with labels at three levels.

    The pictures are drawn on first use (400 of them in about 15 seconds) and again whenever the drawing code, the
    seed or the counts have changed. Labels are stored once, as parts; ``level`` chooses what they are mapped to when
    they are loaded. :data:`HIERARCHY` holds the names and parents.

    Args:
        split: ``'train'`` or ``'val'``.
        level: ``'group'`` (6 classes), ``'object'`` (12) or ``'part'`` (24).
        data_root: Folder of the set; made if it does not exist.
        seed: Seed of the whole set.
        counts: Number of images per split; both splits are drawn together.
        metainfo: As in mmseg; ``classes`` may be a subset of the level's names, others are ignored then.
        **kwargs: Further arguments of ``BaseSegDataset``, such as ``pipeline``.

    Raises:
        ValueError: Unknown split, level or class name.
        FileExistsError: ``data_root`` holds something else.
        OSError: ``data_root`` cannot be written.
    """

    METAINFO = dict(classes=HIERARCHY.names['group'], palette=[list(c) for c in HIERARCHY.palettes['group']])
    GRANULARITIES = tuple(Granularity(level, HIERARCHY.names[level], HIERARCHY.part_to(level)) for level in LEVELS)

    @ranges(seed=STEPS, counts='[1, 1000000]')
    def __init__(
        self,
        split: str = 'train',
        level: str = 'group',
        data_root: str = DEFAULT_ROOT,
        seed: int = DEFAULT_SEED,
        counts: dict[str, int] | None = None,
        metainfo: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f'split is {split!r}, but demo scenes have {" and ".join(map(repr, SPLITS))}')
        HIERARCHY.part_to(level)
        self.split = split
        self.level = level
        self.seed = seed
        self.counts = dict(DEFAULT_COUNTS if counts is None else counts)
        if self.counts.get(split, 0) < 1 or not set(self.counts) <= set(SPLITS):
            raise ValueError(
                f'counts is {self.counts}; give a positive number of images for {split!r}, and for no other split than '
                f'{" and ".join(map(repr, SPLITS))}'
            )
        metainfo = dict(metainfo or {})
        metainfo.setdefault('classes', HIERARCHY.names[level])
        unknown = set(metainfo['classes']) - set(HIERARCHY.names[level])
        if unknown:
            raise ValueError(
                f'classes {sorted(unknown)} are not among the {level} labels of the demo scenes: '
                f'{", ".join(HIERARCHY.names[level])}'
            )
        colour_of = dict(zip(HIERARCHY.names[level], HIERARCHY.palettes[level], strict=True))
        metainfo.setdefault('palette', [list(colour_of[name]) for name in metainfo['classes']])
        super().__init__(
            data_root=os.fspath(data_root),
            img_suffix='.png',
            seg_map_suffix='.png',
            metainfo=metainfo,
            **kwargs,
        )

    def get_label_map(self, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Map from the stored part labels to the classes of this data set (255 for classes left out)."""
        names = HIERARCHY.names[self.level]
        classes = list(names if new_classes is None else new_classes)
        targets = np.array([classes.index(name) if name in classes else self.ignore_index for name in names])
        return dict(enumerate(targets[HIERARCHY.part_to(self.level)].tolist()))

    def load_data_list(self) -> list[dict[str, Any]]:
        """Draw the scenes if they are missing, then list them."""
        root = prepare_scenes(self.data_root, self.seed, self.counts)
        names = [f'{index:05d}.png' for index in range(self.counts[self.split])]
        return [
            data_item(str(root / 'images' / self.split / name), str(root / 'parts' / self.split / name))
            for name in names
        ]


def draw_examples(folder: str | os.PathLike[str], count: int = EXAMPLES) -> Path:
    """Draw the first scenes of the validation, which no shipped weights were trained on, without their labels.

    Args:
        folder: Made if absent; gets ``scene_00.png`` and on.
        count: Number of scenes.

    Returns:
        ``folder`` as a path.
    """
    folder = Path(folder)
    for index in range(count):
        with replaced_when_complete(folder / f'scene_{index:02d}.png') as file:
            Image.fromarray(draw_scene(DEFAULT_SEED, 'val', index)[0]).save(file, format='png')
    return folder
