"""Cut the five crops of every training image beforehand and store them (docs/methods/data.md 5.7)."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from omh_mmseg.datasets.base import run_pipeline
from omh_mmseg.datasets.fingerprint import dataset_fingerprint
from omh_mmseg.datasets.five_crop.stored import (
    CROPS,
    CropManifest,
    image_folder,
    label_folder,
    numbers_in,
)
from omh_mmseg.datasets.transforms import FiveCropPatch
from omh_mmseg.datasets.transforms.five_crop_patch import five_crop_boxes
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.dataset_configs import find_dataset
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.progress import progress_bar

SAMPLED_IMAGES = 8
LEFTOVER_SECONDS = 60
MAX_CLASSES = 254


def find_five_crop_config(cfg: Config) -> dict:
    """The config of the ``FiveCrop`` data set inside ``train_dataloader``.

    Raises:
        ValueError: There is none, so that the config needs no crops.
    """
    five_crop = find_dataset(cfg.get('train_dataloader', {}).get('dataset'), 'FiveCrop')
    if five_crop is None:
        raise ValueError('train_dataloader has no data set of type FiveCrop: this config trains on whole images')
    return five_crop


def prepare_five_crop(
    cfg: Config,
    out: str | Path | None = None,
    split: str = 'train',
    workers: int = 0,
    quality: int = 75,
    progress: bool = True,
) -> tuple[Path, int]:
    """Write the crops of a config's training images, those that are there already excepted.

    Images and labels are loaded by the data set's own pipeline up to ``FiveCropPatch``, and only those of its list.
    Crops of the full-resolution image are saved as JPEG with Pillow's subsampling (4:2:0), labels as PNG of class + 1
    with 0 for ignored pixels. Each file appears only when complete, so that an interrupted call is continued by the
    next one.

    Args:
        cfg: With a ``FiveCrop`` data set in ``train_dataloader``.
        out: Folder above ``img`` and ``label``; by default the config's ``stored``, else
            ``data/cropped/<data set>_five_crop_<ratio>``.
        split: Name of the split's folders.
        workers: Processes beside this one; 0 for none.
        quality: Of the JPEG files; 75 is Pillow's default and STEGO's.
        progress: Draw a progress bar on stderr.

    Returns:
        The folder, and the number of images whose crops were written now.

    Raises:
        FileExistsError: The folder holds other crops.
        ValueError: The config has no ``FiveCrop``, or an image or option does not suit.
        OSError: An image cannot be read, or the disk has no room.
    """
    job = _Job(cfg, out, split, quality)
    job.check_folder()
    _check_disk(job)
    for folder in (image_folder(job.out, split), label_folder(job.out, split)):
        _remove_leftovers(folder)
    stored = CropManifest.read(job.out, split)
    if stored is None or not stored.complete:
        job.manifest(complete=False).write(job.out, split)
    written = 0
    # A batch size of None: the loader passes on what each call returns.
    loader = DataLoader(job, batch_size=None, num_workers=workers)
    with progress_bar(progress) as bar:
        task = bar.add_task('five crops', total=len(job))
        for result in loader:
            if isinstance(result, Exception):
                raise result
            written += int(result)
            bar.advance(task)
    job.manifest(complete=True).write(job.out, split)
    MMLogger.get_current_instance().info(f'{CROPS * len(job)} crops are in {job.out.resolve()}')
    return job.out, written


def describe_five_crop(cfg: Config, out: str | Path | None = None, split: str = 'train', quality: int = 75) -> str:
    """What :func:`prepare_five_crop` would do with these arguments, as text; nothing is written.

    Returns:
        The folder, the number of images and crops, how many are there, and an estimate of the disk space, from the
        crops of a few images.
    """
    job = _Job(cfg, out, split, quality)
    job.check_folder()
    done, crops = job.done(), CROPS * len(job)
    kinds = 'images and labels' if job.labels else 'images without labels'
    return (
        f'{len(job)} images -> {crops} crops ({kinds}) of ratio {job.ratio} in {job.out.resolve()}\n'
        f'{done} are there, {crops - done} are to be made, about {_estimated_bytes(job) / 2**30:.2f} GiB for all'
    )


class _Job(TorchDataset):
    """Crops to be made; item i writes those of image i and returns 1, 0 if they are there, or the exception."""

    def __init__(self, cfg: Config, out: str | Path | None, split: str, quality: int) -> None:
        if not 1 <= quality <= 95:
            raise ValueError(f'quality must lie in 1..95, got {quality}; 75 is that of the published numbers')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        five_crop = find_five_crop_config(cfg)
        self.ratio = float(five_crop.get('ratio', 0.5))
        self.dataset = DATASETS.build(five_crop['dataset'])
        self.dataset.full_init()
        self.split, self.quality = split, quality
        default = f'data/cropped/{type(self.dataset).__name__.lower()}_five_crop_{self.ratio}'
        self.out = Path(out or five_crop.get('stored') or default)
        self.loading = _loading(self.dataset.pipeline.transforms)
        self.labels = 'seg_map_path' in self.dataset.get_data_info(0)
        self.images = dataset_fingerprint(self.dataset)['images']
        self.classes = list(self.dataset.metainfo.get('classes') or ())
        if self.labels and len(self.classes) > MAX_CLASSES:
            raise ValueError(f'labels are stored as class + 1 in 8 bits, {len(self.classes)} classes do not fit')

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, image: int) -> int | Exception:
        wanted = self.files(image)
        if all(path.is_file() for pair in wanted for path in pair):
            return 0
        try:
            for contents, paths in zip(self.encoded(image), wanted):
                for content, path in zip(contents, paths):
                    with replaced_when_complete(path) as file:
                        file.write(content)
        except (OSError, ValueError) as error:
            # Raised again in the main process: a loader would bury the message in a traceback of its own.
            return error
        return 1

    def files(self, image: int) -> list[list[Path]]:
        """Per crop of an image its JPEG file and, with labels, its PNG file."""
        folders = [(image_folder(self.out, self.split), 'jpg')]
        folders += [(label_folder(self.out, self.split), 'png')] if self.labels else []
        return [[folder / f'{CROPS * image + crop}.{kind}' for folder, kind in folders] for crop in range(CROPS)]

    def encoded(self, image: int) -> list[list[bytes]]:
        """The contents of :meth:`files`."""
        item = run_pipeline(self.loading, self.dataset.get_data_info(image))
        picture = item['img']
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f'{item.get("img_path")}: crops are stored of 8-bit colour images, the loading gives {picture.dtype} '
                f'{picture.shape}'
            )
        result = []
        for left, top, right, bottom in five_crop_boxes(picture.shape[0], picture.shape[1], self.ratio):
            if right <= left or bottom <= top:
                size = f'{picture.shape[0]}x{picture.shape[1]}'
                raise ValueError(f'{item.get("img_path")}: {size} is too small for five crops')
            crop = picture[top:bottom, left:right, ::-1]  # the loading gives BGR
            contents = [_file_content(crop, 'JPEG', quality=self.quality)]
            if self.labels:
                label = item['gt_seg_map'][top:bottom, left:right]
                contents.append(_file_content(np.where(label == IGNORED_LABEL, 0, label + 1), 'PNG'))
            result.append(contents)
        return result

    def manifest(self, complete: bool) -> CropManifest:
        return CropManifest(
            self.images, CROPS * len(self), self.ratio, self.quality, self.labels, self.classes, complete
        )

    def done(self) -> int:
        """Number of crops that are there."""
        done = numbers_in(image_folder(self.out, self.split), '.jpg')
        return len(done & numbers_in(label_folder(self.out, self.split), '.png') if self.labels else done)

    def check_folder(self) -> None:
        """Raise FileExistsError if the folder holds other crops."""
        stored = CropManifest.read(self.out, self.split)
        problems: list[str] = []
        if stored is not None:
            problems = stored.differences(self.manifest(complete=True))
        elif numbers_in(image_folder(self.out, self.split), '.jpg'):
            problems = [f'they were not made by this command: {self.out / self.split}.json is absent']
        if problems:
            listed = '\n  '.join(problems)
            raise FileExistsError(
                f'{self.out} holds other crops:\n  {listed}\nChoose another folder with --out, or delete that one'
            )


def _loading(transforms: Sequence[Any]) -> Compose:
    """The steps before ``FiveCropPatch``."""
    for number, transform in enumerate(transforms):
        if isinstance(transform, FiveCropPatch):
            return Compose(list(transforms[:number]))
    raise ValueError(
        "the pipeline of the data set has no dict(type='FiveCropPatch'): what comes before it loads image and label"
    )


def _file_content(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def _estimated_bytes(job: _Job) -> int:
    """Size of all crops, from those of a few images."""
    sampled = range(0, len(job), max(1, len(job) // SAMPLED_IMAGES))
    sizes = [sum(len(content) for contents in job.encoded(image) for content in contents) for image in sampled]
    return round(len(job) * sum(sizes) / len(sizes))


def _check_disk(job: _Job) -> None:
    missing = 1 - job.done() / (CROPS * len(job))
    if not missing:
        return
    job.out.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(job.out).free, missing * _estimated_bytes(job)
    if free < needed:
        raise OSError(
            f'the crops need about {needed / 2**30:.2f} GiB in {job.out}, only {free / 2**30:.2f} GiB are free; make '
            'room or choose another folder with --out'
        )


def _remove_leftovers(folder: Path) -> None:
    """Delete unfinished files of a process that was killed; those of one that is at work are younger."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        parts = [entry for entry in entries if entry.name.startswith('.') and entry.name.endswith('.part')]
    for entry in parts:
        if time.time() - entry.stat().st_mtime > LEFTOVER_SECONDS:
            Path(entry.path).unlink(missing_ok=True)
