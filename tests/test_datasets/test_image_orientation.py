"""Photos that are turned by their EXIF tag, with and without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from omh_mmseg.datasets import ImageReader
from omh_mmseg.datasets.fingerprint import dataset_fingerprint
from omh_mmseg.registry import DATASETS

PIPELINE = [
    dict(type='LoadImageFromFile', _scope_='omh_mmseg'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]


def picture(height: int, width: int) -> np.ndarray:
    """Each pixel holds its row, column and the class 0 or 1."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, (rows > height // 3) * 1 + (columns > width // 2) * 1], -1).astype(np.uint8)


def save(path: Path, values: np.ndarray, tag: int) -> Path:
    image = Image.fromarray(values)
    exif = image.getexif()
    exif[0x0112] = tag
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **(dict(tiffinfo={0x0112: tag}) if path.suffix == '.tif' else dict(exif=exif)))
    return path


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize('tag', range(1, 9))
def test_every_orientation(tmp_path, tag, suffix):
    values = picture(12, 20)
    path = save(tmp_path / f'a.{suffix}', values, tag)
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image))
    turned, stored, header = ImageReader().read(path), ImageReader().read(path, False), ImageReader().header(str(path))
    np.testing.assert_array_equal(turned.rgb, expected)
    np.testing.assert_array_equal(stored.rgb, values)
    assert turned.orientation == stored.orientation == header.orientation == tag
    assert header.size(True) == expected.shape[:2] and header.size(False) == (12, 20)
    with Image.open(path) as image:
        np.testing.assert_array_equal(ImageReader().read(image).rgb, expected)


def test_sixteen_bits_are_turned_too(tmp_path):
    values = picture(12, 20)[..., 0].astype(np.uint16) * 257
    for suffix in ('png', 'tif'):
        path = save(tmp_path / f'a.{suffix}', values, 6)
        np.testing.assert_array_equal(ImageReader().read(path).rgb[..., 0], np.rot90(values // 257, -1))


def test_damaged_tags_do_not_harm(tmp_path):
    path = save(tmp_path / 'a.jpg', picture(12, 20), 9)
    assert ImageReader().read(path).rgb.shape == (12, 20, 3)


def build(root: Path, **options):
    options = dict(split='train', num_classes=3, pipeline=PIPELINE) | options
    return DATASETS.build(dict(type='FolderSegDataset', data_root=str(root), **options))


def labelled(root: Path, tag: int, on: str, size: tuple[int, int] = (12, 20)) -> Path:
    """A photo whose blue channel is its label, drawn on the stored or the turned pixels."""
    values = picture(*size)
    path = save(root / 'images' / 'train' / 'a.png', values, tag)
    with Image.open(path) as image:
        turned = np.array(ImageOps.exif_transpose(image))
    (root / 'labels' / 'train').mkdir(parents=True, exist_ok=True)
    Image.fromarray((turned if on == 'turned' else values)[..., 2]).save(root / 'labels' / 'train' / 'a.png')
    return root


def aligned(data) -> bool:
    item = data[0]
    label = item['data_samples'].gt_sem_seg.data[0].numpy()
    return np.array_equal(item['inputs'][0].numpy(), label)  # BGR: blue comes first


@pytest.mark.parametrize('on', ['turned', 'stored'])
@pytest.mark.parametrize('turn_images', [True, False])
@pytest.mark.parametrize('tag', [5, 6, 7, 8])
def test_labels_follow_the_size_that_they_have(tmp_path, tag, on, turn_images):
    data = build(labelled(tmp_path, tag, on), turn_images=turn_images)
    assert aligned(data)
    assert data[0]['data_samples'].ori_shape == ((20, 12) if turn_images else (12, 20))


@pytest.mark.parametrize('on', ['turned', 'stored'])
@pytest.mark.parametrize(('tag', 'size'), [(6, (15, 15)), (3, (12, 20)), (2, (12, 20))])
def test_where_sizes_do_not_tell_the_option_does(tmp_path, tag, size, on):
    root = labelled(tmp_path, tag, on, size)
    with pytest.raises(ValueError, match=rf"a.png .*EXIF orientation tag {tag}.*label_orientation='turned'"):
        build(root)
    assert aligned(build(root, label_orientation=on))
    assert aligned(build(root, label_orientation=on, turn_images=False))
    other = dict(turned='stored', stored='turned')[on]
    assert not aligned(build(root, label_orientation=other))


def test_labels_of_the_other_form_name_exif(tmp_path):
    root = labelled(tmp_path, 6, 'stored')
    with pytest.raises(ValueError, match=r'the label is 12x20 .*is 20x12; the image has the EXIF orientation tag 6'):
        build(root, label_orientation='turned')
    with pytest.raises(ValueError, match="label_orientation='up' is unknown; choose one of"):
        build(root, label_orientation='up')


def test_published_sets_stay_as_they_are_stored(cityscapes):
    root = cityscapes((40, 60))
    for path in (root / 'cityscapes' / 'leftImg8bit' / 'val').rglob('*.png'):
        save(path, np.array(Image.open(path)), 6)
    options = dict(type='Cityscapes27', data_root=str(root), split='val', pipeline=PIPELINE)
    data, turned = DATASETS.build(options), DATASETS.build(dict(options, turn_images=True))
    for each, size in ((data, (40, 60)), (turned, (60, 40))):
        sample = each[0]['data_samples']
        assert sample.ori_shape == size == tuple(sample.gt_sem_seg.shape)
    assert dataset_fingerprint(data)['pipeline'] != dataset_fingerprint(turned)['pipeline']


@pytest.mark.parametrize('size', [(12, 20), (12, 12)])
@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize('tag', [3, 6, 7])
def test_a_tag_of_the_label_itself_does_not_count(tmp_path, tag, suffix, size):
    """Pillow turns TIFFs as it loads them, and mistakes the sides of those it maps into memory."""
    root = labelled(tmp_path, tag, 'stored', size)
    save(root / 'labels' / 'train' / f'a.{suffix}', picture(*size)[..., 2], tag)
    assert aligned(build(root, seg_map_suffix=f'.{suffix}', label_orientation='stored'))
