"""The confusion matrix picture: what is where, and the error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omh_mmseg.visualization import draw_confusion_matrix

NAMES = ('sky', 'tree', 'road')


def dark(path: Path) -> np.ndarray:
    """Where the darkest blue of the map is, a share of one; the colour bar, to the right, is cut off."""
    with Image.open(path) as image:
        picture = np.asarray(image.convert('RGB')).astype(int)[:, :330]
    return np.abs(picture - [8, 48, 107]).max(-1) < 4


def test_perfect_clusters_are_dark_on_the_diagonal(tmp_path: Path) -> None:
    perfect = np.array([[0, 9, 0], [0, 0, 5], [400, 0, 0]])
    path = draw_confusion_matrix(tmp_path / 'a.png', perfect, [1, 2, 0], NAMES, 'probe')
    spread = draw_confusion_matrix(tmp_path / 'b.png', np.full((3, 3), 7), [1, 2, 0], NAMES)
    assert dark(spread).sum() < 100 < 5000 < dark(path).sum()
    rows, columns = np.nonzero(dark(path))
    assert np.corrcoef(rows, columns)[0, 1] > 0.8


@pytest.mark.parametrize('size', [(40, 3), (2, 60)])
def test_any_number_of_clusters_and_classes(tmp_path: Path, size: tuple[int, int]) -> None:
    clusters, classes = size
    assignment = np.where(np.arange(clusters) < classes, np.arange(clusters), -1)
    names = [f'class {number}' for number in range(classes)]
    path = draw_confusion_matrix(tmp_path / 'a.png', np.zeros(size, int), assignment, names)
    with Image.open(path) as image:
        assert min(image.size) > 150 and max(image.size) < 2500


def test_sizes_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'shape \(2, 3\) do not fit 3 assigned clusters and 3 classes'):
        draw_confusion_matrix(tmp_path / 'a.png', np.ones((2, 3), int), [0, 1, 2], NAMES)
