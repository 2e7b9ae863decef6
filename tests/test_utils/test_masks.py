from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from omh_mmseg.utils.masks import write_mask

RED_AND_BLUE = [[255, 0, 0], [0, 0, 255]]


@pytest.mark.parametrize('palette', [None, RED_AND_BLUE, np.full((255, 3), 7, np.uint8)])
def test_numbers_come_back_and_have_colours(tmp_path, palette):
    labels = np.arange(256).reshape(16, 16)
    write_mask(tmp_path / 'mask.png', labels, palette)
    with Image.open(tmp_path / 'mask.png') as picture:
        assert picture.mode == 'P'
        stored, shown = np.array(picture), np.array(picture.convert('RGB'))
    assert stored.dtype == np.uint8 and np.array_equal(stored, labels)
    assert shown[15, 15].tolist() == [255, 255, 255]
    given = np.asarray([] if palette is None else palette)
    assert np.array_equal(shown.reshape(-1, 3)[: len(given)], given.reshape(-1, 3))
    if palette is None:
        assert len({tuple(colour) for colour in shown.reshape(-1, 3).tolist()}) > 200
        assert shown[0, 0].max() > 200


def test_few_numbers_stay_whole_bytes(tmp_path):
    write_mask(tmp_path / 'mask.png', np.array([[0, 1], [1, 0]]), RED_AND_BLUE)
    assert (tmp_path / 'mask.png').read_bytes()[24] == 8
    assert np.array(Image.open(tmp_path / 'mask.png')).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(('labels', 'palette'), [([[0, 256]], None), ([[0, 1]], np.zeros((300, 3)))])
def test_more_numbers_take_sixteen_bits(tmp_path, labels, palette):
    write_mask(tmp_path / 'mask.png', np.array(labels), palette)
    stored = np.array(Image.open(tmp_path / 'mask.png'))
    assert stored.dtype == np.uint16 and stored.tolist() == labels
