"""Shared fixtures: where the golden arrays and the optional shared material are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN_FILES = ('stego_correlation.npz', 'cluster_lookup.npz', 'metrics.npz', 'dino_vit.npz')


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
