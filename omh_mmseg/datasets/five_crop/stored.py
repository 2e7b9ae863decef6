"""The folder of five-crops that were cut beforehand: its layout, its manifest and its checks.

The layout is STEGO's, so that a folder made by its own script serves as well (docs/methods/data.md 5.1, 5.7)::

    <folder>/img/<split>/<k>.jpg      crop k = 5 * image + j
    <folder>/label/<split>/<k>.png    class + 1, 0 is ignored
    <folder>/<split>.json             what the crops were made from; absent in folders of STEGO's script
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omh_mmseg.utils.checks import options_of
from omh_mmseg.utils.commands import suggested_command
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.text import first_few

COMMAND = 'prepare.py five-crop'
CROPS = 5
RANGES = dict(crops='[0, inf)', ratio='(0, 1]', quality='[0, 100]')


@dataclass(frozen=True)
class CropManifest:
    """What a folder of crops was made from.

    Attributes:
        images: Digest of the list of images.
        crops: Number of crops of the complete folder.
        ratio: Side of a crop relative to the image.
        quality: Of the JPEG files.
        labels: Whether there are labels.
        classes: Names of the classes that the labels hold.
        complete: Whether all crops have been written.
    """

    images: str
    crops: int
    ratio: float
    quality: int
    labels: bool
    classes: list[str]
    complete: bool = False

    @classmethod
    def read(cls, folder: Path, split: str) -> CropManifest | None:
        """The manifest of a folder; None where there is none.

        Raises:
            ValueError: The file is not such a manifest.
        """
        path = folder / f'{split}.json'
        if not path.is_file():
            return None
        try:
            manifest = cls(**json.loads(path.read_text(encoding='utf-8')))
            for name, option in options_of(cls.__annotations__, RANGES).items():
                option.check(name, getattr(manifest, name))
            if not isinstance(manifest.classes, list) or not isinstance(manifest.images, str):
                raise TypeError(f'images is {manifest.images!r} and classes {manifest.classes!r}')
            return manifest
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'{path} does not describe a folder of crops ({error}); delete it if the folder was made otherwise'
            ) from error

    def write(self, folder: Path, split: str) -> None:
        """Write the manifest into a folder."""
        with replaced_when_complete(folder / f'{split}.json') as file:
            file.write(f'{json.dumps(asdict(self), indent=2)}\n'.encode())

    def differences(self, other: CropManifest) -> list[str]:
        """Where two folders differ, other than in being complete, one sentence each."""
        mine, theirs = asdict(self), asdict(other)
        return [f'{key}: {mine[key]} there, {theirs[key]} here' for key in mine if mine[key] != theirs[key]
                and key != 'complete']  # fmt: skip


@dataclass(frozen=True)
class StoredCrops:
    """A folder of crops that has been checked.

    Attributes:
        folder: The folder above ``img`` and ``label``.
        split: Name of the split's folders.
        crops: Number of crops.
        labels: Whether there are labels.
        source: Digest of the images, ``'unknown'`` without a manifest.
    """

    folder: Path
    split: str
    crops: int
    labels: bool
    source: str

    @classmethod
    def open(cls, folder: Path, split: str, ratio: float, classes: Sequence[str], labels: bool) -> StoredCrops:
        """Check a folder.

        Args:
            folder: The folder above ``img`` and ``label``.
            split: Name of the split's folders.
            ratio: Side of a crop that is wanted.
            classes: Names of the classes that are wanted.
            labels: Whether to look at labels.

        Raises:
            FileNotFoundError: The folder, crops or labels are missing.
            ValueError: The folder is incomplete, or has another ratio or other classes.
        """
        remedy = f'Make it with\n    {_command(folder, split)}'
        if not image_folder(folder, split).is_dir():
            raise FileNotFoundError(
                f'no folder of stored crops {image_folder(folder, split)}; stored={str(folder)!r} is the folder above '
                f'img/{split} and label/{split}. {remedy}'
            )
        manifest = CropManifest.read(folder, split)
        _check_ratio(manifest, folder, ratio)
        if manifest is not None:
            _check_manifest(manifest, folder, split, classes)
        numbers = numbers_in(image_folder(folder, split), '.jpg')
        crops = manifest.crops if manifest is not None else -(-(max(numbers, default=-1) + 1) // CROPS) * CROPS
        _check_numbers(numbers, crops, image_folder(folder, split), '.jpg', remedy)
        has_labels = labels and (
            manifest.labels if manifest is not None else label_folder(folder, split).is_dir()
        )
        if has_labels:
            numbers = numbers_in(label_folder(folder, split), '.png')
            _check_numbers(numbers, crops, label_folder(folder, split), '.png', remedy)
        source = f'{manifest.images}, quality {manifest.quality}' if manifest is not None else 'unknown'
        return cls(folder, split, crops, has_labels, source)

    def paths(self, crop: int) -> tuple[str, str | None]:
        """Image and label of a crop."""
        label = str(label_folder(self.folder, self.split) / f'{crop}.png') if self.labels else None
        return str(image_folder(self.folder, self.split) / f'{crop}.jpg'), label


def image_folder(folder: Path, split: str) -> Path:
    """Where the JPEG files are."""
    return folder / 'img' / split


def label_folder(folder: Path, split: str) -> Path:
    """Where the PNG files are."""
    return folder / 'label' / split


def numbers_in(folder: Path, suffix: str) -> set[int]:
    """Numbers of the files ``<k><suffix>``; other files do not count."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        stems = [entry.name[: -len(suffix)] for entry in entries if entry.name.endswith(suffix)]
    return {int(stem) for stem in stems if stem.isascii() and stem.isdigit()}


def _check_manifest(manifest: CropManifest, folder: Path, split: str, classes: Sequence[str]) -> None:
    if not manifest.complete:
        raise ValueError(
            f'the stored crops in {folder} are not complete: their preparation was interrupted. Continue it with\n'
            f'    {_command(folder, split)}'
        )
    if manifest.labels and manifest.classes != list(classes):
        raise ValueError(
            f'the labels of the stored crops in {folder} were written for {len(manifest.classes)} classes '
            f'({first_few(manifest.classes)}), the config has {len(classes)} ({first_few(list(classes))}); prepare '
            'another folder for other classes'
        )


def _check_ratio(manifest: CropManifest | None, folder: Path, ratio: float) -> None:
    named = re.search(r'_crop_(\d*\.?\d+)$', folder.resolve().name)
    stored, source = (named and named[1], ', by the name of the folder,') if manifest is None else (manifest.ratio, '')
    if stored is not None and float(stored) != ratio:
        raise ValueError(
            f'the stored crops in {folder} have{source} the ratio {stored}, the config asks for ratio={ratio}; set it '
            'to that of the folder, or stored to another folder'
        )


def _check_numbers(numbers: set[int], crops: int, folder: Path, suffix: str, remedy: str) -> None:
    missing = [f'{number}{suffix}' for number in range(crops) if number not in numbers]
    if missing or not crops:
        what = f'{len(missing)} of {crops} files are missing: {first_few(missing)}' if crops else 'there are no crops'
        raise FileNotFoundError(f'{folder}: {what}. {remedy}')
    if len(numbers) > crops:
        raise ValueError(f'{folder} holds {len(numbers)} crops, {crops} are expected; delete the folder. {remedy}')


def _command(folder: Path, split: str) -> str:
    options = [] if split == 'train' else ['--split', split]
    return suggested_command(COMMAND, '--out', str(folder), *options)
