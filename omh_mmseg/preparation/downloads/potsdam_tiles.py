"""The tiles of ISPRS Potsdam, cut into the patches of IIC (docs/methods/data.md 5.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image

from omh_mmseg.datasets.mat_files import IMAGE_KEY, LABEL_KEY
from omh_mmseg.datasets.potsdam3 import COLOUR_TO_6
from omh_mmseg.preparation.downloads.sources import Entry
from omh_mmseg.utils.files import replaced_when_complete

PATCH = 200
EXTRA_SAMPLES, PREMULTIPLIED = 338, (1,)


def grid(entry: Entry) -> tuple[int, int]:
    """Rows and columns of patches in a tile, from the header of its file.

    Raises:
        ValueError: The tile does not divide into patches of twice 200 pixels.
    """
    with entry.open() as file, Image.open(file) as image:
        width, height = image.size
    if width % (2 * PATCH) or height % (2 * PATCH):
        raise ValueError(
            f'{entry.path}: a tile of {width} x {height} pixels does not divide into squares of {2 * PATCH} pixels; '
            'the tiles of ISPRS Potsdam have 6000 x 6000'
        )
    return height // (2 * PATCH), width // (2 * PATCH)


def halved_image(entry: Entry) -> np.ndarray:
    """A tile at half size, bilinear, which at exactly half is the mean of two by two pixels.

    Returns:
        uint8 (H / 2, W / 2, 4): red, green, blue, infra-red.

    Raises:
        ValueError: The file has other channels.
    """
    with entry.open() as file, Image.open(file) as image:
        premultiplied = getattr(image, 'tag_v2', {}).get(EXTRA_SAMPLES) == PREMULTIPLIED
        tile = np.array(image)
    if tile.ndim != 3 or tile.shape[2] != 4 or tile.dtype != np.uint8 or premultiplied:
        raise ValueError(
            f'{entry.path}: a tile must have four independent channels of 8 bits (red, green, blue, infra-red), this '
            f'one is {tile.dtype} {tile.shape}' + (' with its colours multiplied by the fourth' * premultiplied)
        )
    return cv2.resize(tile, (tile.shape[1] // 2, tile.shape[0] // 2), interpolation=cv2.INTER_LINEAR)


def halved_label(entry: Entry) -> np.ndarray:
    """The classes of a tile at half size, the upper left of each two by two pixels.

    Returns:
        int32 (H / 2, W / 2), values 0..5.

    Raises:
        ValueError: A colour is not among those of the six classes.
    """
    with entry.open() as file, Image.open(file) as image:
        colours = np.array(image.convert('RGB'))[::2, ::2].astype(np.int32)
    packed = colours[:, :, 0] << 16 | colours[:, :, 1] << 8 | colours[:, :, 2]
    known = sorted((red << 16 | green << 8 | blue, target) for (red, green, blue), target in COLOUR_TO_6.items())
    codes, targets = (np.array(column, dtype=np.int32) for column in zip(*known))
    places = np.searchsorted(codes, packed).clip(max=len(codes) - 1)
    wrong = np.unique(packed[codes[places] != packed])
    if len(wrong):
        shown = ', '.join(str((code >> 16, code >> 8 & 255, code & 255)) for code in wrong[:5].tolist())
        raise ValueError(
            f'{entry.path}: {len(wrong)} colour{"s" if len(wrong) > 1 else ""} that stand for no class, {shown}; known '
            f'are {", ".join(map(str, COLOUR_TO_6))}. Labels without boundaries (noBoundary) do not serve'
        )
    return targets[places]


@dataclass(frozen=True)
class CutTile:
    """One tile as patches ``imgs/<tile>_<row>_<column>.mat`` and, where it has labels, ``gt/<same>.mat``.

    Attributes:
        tile: Its name, such as ``2_10``.
        image: Its four channels.
        label: Its colours, None if it has none.
        out: Folder of ``imgs`` and ``gt``.
        rows: Patches from top to bottom.
        columns: Patches from left to right.
    """

    tile: str
    image: Entry
    label: Entry | None
    out: Path
    rows: int
    columns: int

    def patches(self) -> Iterator[tuple[str, int, int]]:
        """Name, row and column of each patch, row after row."""
        for row in range(self.rows):
            for column in range(self.columns):
                yield f'{self.tile}_{row}_{column}', row, column

    def _targets(self) -> list[Path]:
        kinds = ['imgs', 'gt'] if self.label else ['imgs']
        return [self.out / kind / f'{name}.mat' for kind in kinds for name, _, _ in self.patches()]

    def done(self) -> bool:
        """All patches are there."""
        return all(path.is_file() for path in self._targets())

    def files(self) -> int:
        """Patches of image and label."""
        return len(self._targets())

    def run(self) -> None:
        """Cut and write those patches that are not there.

        Raises:
            ValueError: The tile or its labels are not as expected, or differ in size.
        """
        image = halved_image(self.image)
        label = halved_label(self.label) if self.label else None
        if label is not None and label.shape != image.shape[:2]:
            raise ValueError(
                f'{self.image.path} and {self.label and self.label.path} differ in size: half of them is '
                f'{image.shape[:2]} and {label.shape}'
            )
        for name, row, column in self.patches():
            part = np.s_[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            _write(self.out / 'imgs' / f'{name}.mat', IMAGE_KEY, image[part])
            if label is not None:
                _write(self.out / 'gt' / f'{name}.mat', LABEL_KEY, label[part])


def _write(path: Path, key: str, array: np.ndarray) -> None:
    if not path.is_file():
        with replaced_when_complete(path) as file:
            scipy.io.savemat(file, {key: array})
