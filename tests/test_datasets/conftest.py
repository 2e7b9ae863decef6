"""Small image folders for the data set tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image

import omh_mmseg  # noqa: F401


@pytest.fixture(autouse=True)
def scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmseg's registries, and a command line that names no config."""
    init_default_scope('mmseg')
    monkeypatch.setattr(sys, 'argv', ['pytest'])


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
