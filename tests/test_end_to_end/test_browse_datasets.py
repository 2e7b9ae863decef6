"""mmseg's ``browse_dataset.py``, from the installed package, on small copies of the three published data sets."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
import scipy.io
from mmengine.registry import DefaultScope
from PIL import Image

import omh_mmseg.datasets as datasets

TOOL = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'analysis_tools' / 'browse_dataset.py'
BASE = Path(__file__).resolve().parents[2] / 'configs' / '_base_'

pytestmark = pytest.mark.skipif(not TOOL.is_file(), reason='mmseg was installed without its tools')


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    """Leave no default scope behind."""
    yield
    DefaultScope._instance_dict.clear()


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def grey(height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def left_and_right(left: int, right: int, height: int = 64, width: int = 64) -> np.ndarray:
    label = np.full((height, width), left, np.uint8)
    label[:, width // 2 :] = right
    return label


def coco(root: Path) -> None:
    picture(root / 'cocostuff/images/train2017/000000000001.jpg', grey())
    picture(root / 'cocostuff/annotations/train2017/000000000001.png', left_and_right(156, 0))
    (root / 'cocostuff/curated/train2017').mkdir(parents=True)
    (root / 'cocostuff/curated/train2017/Coco164kFull_Stuff_Coarse.txt').write_text('000000000001\n')


def cityscapes(root: Path) -> None:
    stem = 'train/aachen/aachen_000000_000019'
    picture(root / f'cityscapes/leftImg8bit/{stem}_leftImg8bit.png', grey())
    picture(root / f'cityscapes/gtFine/{stem}_gtFine_labelIds.png', left_and_right(23, 7))


def potsdam(root: Path) -> None:
    for kind, key, array in (
        ('imgs', 'img', np.full((64, 64, 4), 90, np.uint8)),
        ('gt', 'gt', left_and_right(1, 3).astype(np.int32)),
    ):
        (root / 'potsdam' / kind).mkdir(parents=True)
        scipy.io.savemat(root / 'potsdam' / kind / '7.mat', {key: array})
    (root / 'potsdam/labelled_train.txt').write_text('7\n')


def browse(monkeypatch, config: Path, folder: Path) -> set[str]:
    """Run the command; the names that it wrote into its pictures."""
    texts: set[str] = set()
    write = cv2.putText
    monkeypatch.setattr(cv2, 'putText', lambda image, text, *rest: (texts.add(text), write(image, text, *rest))[1])
    monkeypatch.setattr(sys, 'argv', [str(TOOL), str(config), '--output-dir', str(folder), '--not-show'])
    runpy.run_path(str(TOOL), run_name='__main__')
    return texts


@pytest.mark.parametrize(
    ('name', 'write', 'type_name', 'classes', 'file'),
    [
        ('coco-stuff27', coco, 'COCOStuff27', ('sky', 'person'), '000000000001.jpg'),
        ('cityscapes27', cityscapes, 'Cityscapes27', ('sky', 'road'), 'aachen_000000_000019_leftImg8bit.png'),
        ('potsdam3', potsdam, 'Potsdam3', ('buildings and clutter', 'trees and vegetation'), '7.png'),
    ],
)
def test_names_and_colours(
    tmp_path: Path, monkeypatch, name: str, write: Callable[[Path], None], type_name: str, classes: tuple, file: str
):
    write(tmp_path)
    monkeypatch.setenv('OMH_DATA_ROOT', str(tmp_path))
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = ['{BASE}/datasets/{name}.py', '{BASE}/default_runtime.py']\n")
    assert browse(monkeypatch, config, tmp_path / 'browsed') == set(classes)
    picture = np.array(Image.open(tmp_path / 'browsed' / file).convert('RGB')).astype(int)
    assert picture.shape == (224, 224, 3)
    # The last crop of the five is the centre: one class on the left, one on the right. mmseg lays the colours over the
    # image with a weight of 0.8.
    meta = getattr(datasets, type_name).METAINFO
    for column, shown_class in ((40, classes[0]), (184, classes[1])):
        colour = np.array(meta['palette'][meta['classes'].index(shown_class)])
        np.testing.assert_allclose(picture[112, column], 0.8 * colour + 0.2 * 90, atol=6)
