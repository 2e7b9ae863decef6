"""Shared fixtures: where the golden arrays and the optional shared material are, and small image folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.io
import torch
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from loopback import Loopback, loopback  # noqa: E402

from omh_mmseg.compat import import_yapf  # noqa: E402
from omh_mmseg.stack import keep_imports  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN_FILES = ('stego_correlation.npz', 'cluster_lookup.npz', 'metrics.npz', 'dino_vit.npz')


@pytest.fixture(scope='session', autouse=True)
def _configs_unformatted() -> Iterator[None]:
    """Spare each of some hundred runs the half second in which mmengine lays out the config that it logs."""
    import_yapf()
    with mock.patch('yapf.yapflib.yapf_api.FormatCode', lambda text, **options: (text, True)):
        yield


@pytest.fixture(scope='session', autouse=True)
def _imports_uncollected() -> None:
    """mmengine collects garbage for every data set, which takes a quarter of a second among all that is imported."""
    keep_imports()


@pytest.fixture(scope='session')
def shared_dir() -> Path:
    """The folder with photos, weights and golden arrays that is not part of the repository."""
    folder = Path(os.environ.get('OMH_SHARED_DIR', REPOSITORY.parent / 'shared'))
    if not folder.is_dir():
        pytest.skip(f'no shared material at {folder}; set OMH_SHARED_DIR to its folder')
    return folder


def golden_dir() -> Path:
    """``OMH_GOLDEN_DIR``, else ``tests/data/golden`` where complete, else ``../shared/golden``."""
    if 'OMH_GOLDEN_DIR' in os.environ:
        return Path(os.environ['OMH_GOLDEN_DIR'])
    bundled = REPOSITORY / 'tests' / 'data' / 'golden'
    if all((bundled / name).is_file() for name in GOLDEN_FILES):
        return bundled
    return REPOSITORY.parent / 'shared' / 'golden'


@pytest.fixture(scope='session')
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Load one golden file by its stem, e.g. ``golden('metrics')``."""

    def load(name: str) -> dict[str, np.ndarray]:
        path = golden_dir() / f'{name}.npz'
        if not path.is_file() and 'OMH_GOLDEN_DIR' not in os.environ:
            path = REPOSITORY.parent / 'shared' / 'golden' / path.name
        if not path.is_file():
            pytest.skip(f'golden arrays {path} are absent; set OMH_GOLDEN_DIR to the folder that has them')
        with np.load(path) as arrays:
            return dict(arrays)

    return load


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A server on the loopback interface, and an empty cache of downloads."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch_home'))
    with loopback() as served:
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a camvid-like folder: ``folder(count=3, labels=True, split='train', size=(40, 60), classes=4)``."""

    def write(
        count: int = 3,
        labels: bool = True,
        split: str = 'train',
        size: tuple[int, int] = (40, 60),
        classes: int = 4,
        suffix: str = '.png',
        name: str = 'photos',
    ) -> Path:
        root = tmp_path / name
        generator = np.random.default_rng(0)
        for kind in ('images', 'labels')[: 1 + labels]:
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / 'images' / split / f'{number:03d}{suffix}')
            if labels:
                label = generator.integers(0, classes, size).astype(np.uint8)
                label[0, 0], label[-1, -1] = 255, classes - 1
                Image.fromarray(label).save(root / 'labels' / split / f'{number:03d}.png')
        return root

    return write


def write_pixels(path: Path, pixels: np.ndarray) -> None:
    """An image file of these pixels, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def cityscapes(tmp_path: Path) -> Callable[..., Path]:
    """Write Cityscapes below ``cityscapes/``: two cities per split, every label id 0..33 and 255 in each label."""

    def write(size: tuple[int, int] = (64, 129), per_city: int = 2) -> Path:
        generator = np.random.default_rng(0)
        root = tmp_path / 'cityscapes'
        for split, cities in (('train', ('zurich', 'aachen')), ('val', ('lindau', 'frankfurt'))):
            for city in cities:
                for number in range(per_city):
                    stem = f'{split}/{city}/{city}_{number:06d}_000019'
                    image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
                    write_pixels(root / f'leftImg8bit/{stem}_leftImg8bit.png', image)
                    label = np.resize(np.array([*range(34), 255], np.uint8), size)
                    write_pixels(root / f'gtFine/{stem}_gtFine_labelIds.png', label)
                    write_pixels(root / f'gtFine/{stem}_gtFine_labelTrainIds.png', np.zeros(size, np.uint8))
        return tmp_path

    return write


@pytest.fixture
def potsdam(tmp_path: Path) -> Callable[..., Path]:
    """Write the patches of IIC below ``potsdam/``: four, all but the last with labels of every value 0..5 and 255."""

    def write(size: tuple[int, int] = (200, 200)) -> Path:
        generator = np.random.default_rng(0)
        root = tmp_path / 'potsdam'
        for kind in ('imgs', 'gt'):
            (root / kind).mkdir(parents=True)
        for number in range(4):
            image = generator.integers(0, 256, (*size, 4), dtype=np.uint8)
            scipy.io.savemat(root / 'imgs' / f'{number}.mat', dict(img=image))
            label = np.resize(np.array([*range(6), 255], np.int32), size)
            if number < 3:
                scipy.io.savemat(root / 'gt' / f'{number}.mat', dict(gt=label))
        for name, ids in (('labelled_train', (2, 0)), ('labelled_test', (1,)), ('unlabelled_train', (3,))):
            (root / f'{name}.txt').write_text(''.join(f'{number}\n' for number in ids))
        return tmp_path

    return write


@pytest.fixture
def mmseg_scope() -> Iterator[None]:
    """mmseg's registries and a fixed seed, for the folders and files of which every test needs them."""
    torch.manual_seed(0)
    init_default_scope('mmseg')
    yield
    DefaultScope._instance_dict.clear()
