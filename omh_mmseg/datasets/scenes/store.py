"""Write the demo scenes to disk: completely or not at all."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock
from PIL import Image
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from omh_mmseg.datasets.scenes.compose import draw_scene
from omh_mmseg.utils.devices import processors

STAMP = 'stamp.json'
MOST_WORKERS = 8
WORTH_WORKERS = 64
"""Scenes from which on the start of processes pays."""


Draw = Callable[[Path, str, int], None]
"""Writes what a number stands for, a scene or a sequence, of a split, into a folder."""


def drawing_stamp(seed: int, counts: dict[str, int]) -> dict[str, object]:
    """What the pictures depend on: the drawing code, the seed and the number of images per split."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob('*.py')):
        if source.name not in ('__init__.py', Path(__file__).name):
            digest.update(source.read_bytes().replace(b'\r\n', b'\n'))
    return dict(drawing=digest.hexdigest()[:16], seed=seed, counts=dict(sorted(counts.items())))


def is_complete(root: Path, stamp: dict[str, object]) -> bool:
    """Whether ``root`` holds every image and label of exactly this stamp."""
    try:
        if json.loads((root / STAMP).read_text()) != stamp:
            return False
    except (OSError, ValueError):
        return False
    counts: dict[str, int] = stamp['counts']  # type: ignore[assignment]
    return all(
        sum(entry.suffix == '.png' for entry in folder.iterdir()) == count if folder.is_dir() else False
        for split, count in counts.items()
        for folder in (root / 'images' / split, root / 'parts' / split)
    )


def _draw_all(folder: Path, draw: Draw, jobs: Mapping[str, int]) -> None:
    for split in jobs:
        (folder / 'images' / split).mkdir(parents=True)
        (folder / 'parts' / split).mkdir(parents=True)
    drawing = _Drawing(folder, draw, [(split, index) for split, count in jobs.items() for index in range(count)])
    # A scene depends on its number alone, so that processes may share the work.
    workers = min(processors(), MOST_WORKERS)
    if workers == 1 or len(drawing) < WORTH_WORKERS or multiprocessing.current_process().daemon:
        workers = 0
    # A generator of its own, as the loader draws from the global one otherwise.
    loader = DataLoader(drawing, batch_size=None, num_workers=workers, generator=torch.Generator())
    for _ in track(loader, description='Drawing the demo scenes'):
        pass


class _Drawing(Dataset):
    """Draws and writes what a number stands for."""

    def __init__(self, folder: Path, draw: Draw, jobs: list[tuple[str, int]]) -> None:
        self.folder, self.draw, self.jobs = folder, draw, jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, item: int) -> int:
        self.draw(self.folder, *self.jobs[item])
        return item


def _write_scene(folder: Path, split: str, index: int, seed: int) -> None:
    image, parts = draw_scene(seed, split, index)
    Image.fromarray(image).save(folder / 'images' / split / f'{index:05d}.png')
    Image.fromarray(parts).save(folder / 'parts' / split / f'{index:05d}.png')


def prepare_scenes(root: str | os.PathLike[str], seed: int, counts: dict[str, int]) -> Path:
    """Make sure that ``root`` holds the demo scenes of the present drawing code; draw them if it does not.

    Images are drawn into a temporary folder beside ``root`` that takes its place when complete, so that an
    interrupted run leaves nothing and concurrent runs leave one complete set.

    Args:
        root: Folder of the set; gets ``images/{split}/{index}.png``, ``parts/{split}/{index}.png`` and a stamp.
        seed: Seed of the set.
        counts: Number of images per split.

    Returns:
        ``root`` as a path.

    Raises:
        FileExistsError: ``root`` holds something else, which is left alone.
        OSError: ``root`` cannot be written.
    """
    return prepare_drawn(root, drawing_stamp(seed, counts), partial(_write_scene, seed=seed), counts)


def prepare_drawn(
    root: str | os.PathLike[str], stamp: dict[str, object], draw: Draw, jobs: Mapping[str, int]
) -> Path:
    """`prepare_scenes`, whatever is drawn.

    Args:
        root: Folder of the set.
        stamp: What the pictures depend on; its ``counts`` are the numbers of images per split.
        draw: Writes what a number of a split stands for: images and parts, and what else belongs to them.
        jobs: How many numbers there are per split.

    Returns:
        ``root`` as a path.

    Raises:
        FileExistsError: See `prepare_scenes`.
        OSError: Likewise.
    """
    root = Path(root)
    if is_complete(root, stamp):
        return root
    if root.exists() and not (root / STAMP).is_file() and not (root.is_dir() and not any(root.iterdir())):
        raise FileExistsError(
            f'{root} exists but does not hold demo scenes (no {STAMP}); it is left as it is. Choose another data_root '
            'for the demo scenes or move that folder away.'
        )
    parent = root.absolute().parent
    prefix = f'.{root.name}.drawing-'
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f'.{root.name}.lock'):
            if is_complete(root, stamp):
                return root
            # Under the lock, what is left of a killed writer belongs to nobody.
            for leftover in parent.glob(prefix + '*'):
                shutil.rmtree(leftover, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            try:
                _draw_all(folder / 'new', draw, jobs)
                (folder / 'new' / STAMP).write_text(json.dumps(stamp) + '\n')
                _replace(folder / 'new', root, folder / 'old', stamp)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise OSError(
            f'cannot draw the demo scenes to {root.absolute()}: {error}. Choose a writable folder with about 20 MB of '
            'free space, for example with --cfg-options data_root=/path/to/demo_scenes, or start the command in '
            'another directory.'
        ) from error
    return root


def _replace(new: Path, root: Path, old: Path, stamp: dict[str, object]) -> None:
    """Put the folder ``new`` in the place of ``root``, unless another process just did."""
    if is_complete(root, stamp):
        return
    if root.exists():
        os.replace(root, old)
    try:
        os.replace(new, root)
    except OSError:
        if not is_complete(root, stamp):
            raise
