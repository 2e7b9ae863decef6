"""Pictures of every depth, number of bands, mode and size through the one reader."""

from __future__ import annotations

import io
import itertools
import struct
import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.fileio import get
from mmengine.logging import MMLogger
from PIL import Image

from omh_mmseg.datasets import ImageReader, LoadImage
from omh_mmseg.datasets.fingerprint import dataset_fingerprint
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.config import read_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
HEIGHT, WIDTH = 20, 30


@pytest.fixture(scope='module')
def colour() -> np.ndarray:
    """uint8 (20, 30, 3), RGB."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def grey(colour) -> np.ndarray:
    return colour[..., 0].copy()


def read(picture, *, turned: bool = True, **options) -> np.ndarray:
    return ImageReader(**options).read(picture, turned).rgb


def write(path: Path, values: np.ndarray) -> Path:
    """A file of any depth: RGB by OpenCV, grey by Pillow."""
    if values.ndim == 3:
        assert cv2.imwrite(str(path), values[..., [2, 1, 0, *range(3, values.shape[2])]])
    else:
        Image.fromarray(values).save(path)
    return path


def write_tiff(path: Path, values: np.ndarray, photometric: int = 1) -> Path:
    """An uncompressed TIFF of any number of 8- or 16-bit bands, which Pillow and OpenCV do not write."""
    height, width, bands = values.shape
    kind = 1 + (values.dtype.kind == 'i')
    data = values.astype(values.dtype.newbyteorder('<')).tobytes()
    bits = 8 * values.dtype.itemsize
    extra = 8 + len(data)
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, bands, extra if bands > 2 else bits),
        (259, 3, 1, 1), (262, 3, 1, photometric),
        (273, 4, 1, 8), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1),
        (339, 3, 1, kind),
    ]  # fmt: skip
    directory = struct.pack('<H', len(tags)) + b''.join(struct.pack('<HHII', *tag) for tag in tags) + bytes(4)
    head = b'II*\0' + struct.pack('<I', extra + 2 * bands)
    path.write_bytes(head + data + struct.pack(f'<{bands}H', *[bits] * bands) + directory)
    return path


def write_planes(path: Path, values: np.ndarray) -> Path:
    """An uncompressed RGB TIFF of 16 bits that stores one band after the other."""
    height, width, bands = values.shape
    data = np.moveaxis(values, -1, 0).astype('<u2').tobytes()
    extra, size = 8 + len(data), len(data) // bands
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, bands, extra), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, bands, extra + 6), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, bands, extra + 18),
        (284, 3, 1, 2),
    ]  # fmt: skip
    directory = struct.pack('<H', len(tags)) + b''.join(struct.pack('<HHII', *tag) for tag in tags) + bytes(4)
    lists = struct.pack('<3H3I3I', 16, 16, 16, *(8 + band * size for band in range(3)), size, size, size)
    path.write_bytes(b'II*\0' + struct.pack('<I', extra + len(lists)) + data + lists + directory)
    return path


# ---- depth


@pytest.mark.parametrize('suffix', ['png', 'tif', 'pgm', 'jp2'])
def test_sixteen_bits_of_grey(tmp_path, grey, suffix):
    path = write(tmp_path / f'a.{suffix}', grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read(path), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize('suffix', ['png', 'tif', 'ppm'])
def test_sixteen_bits_of_colour(tmp_path, colour, suffix):
    path = write(tmp_path / f'a.{suffix}', colour.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read(path), colour)
    path = write(tmp_path / f'b.{suffix}', colour.astype(np.uint16) * 16)
    np.testing.assert_array_equal(read(path, value_range=(0, 4080)), colour)


def test_sixteen_bits_of_colour_band_by_band(tmp_path, colour, monkeypatch):
    path = write_planes(tmp_path / 'a.tif', colour.astype(np.uint16) * 257)
    with monkeypatch.context() as without:
        without.setitem(__import__('sys').modules, 'tifffile', None)
        with pytest.raises(ValueError, match=r'a.tif: .* band by band need another decoder: pip install .*\[tiff\]'):
            read(path)
    pytest.importorskip('tifffile')
    np.testing.assert_array_equal(read(path), colour)


def test_a_codec_that_tifffile_lacks(tmp_path, colour, monkeypatch):
    path = write(tmp_path / 'a.tif', colour.astype(np.uint16) * 257)

    class Page:
        def asarray(self):
            raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    class TiffFile:
        pages = (Page(),)

        def __init__(self, stream):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setitem(__import__('sys').modules, 'tifffile', SimpleNamespace(TiffFile=TiffFile))
    np.testing.assert_array_equal(read(path), colour)


def test_a_range_that_makes_unit_floats_black_is_told_once(monkeypatch, grey):
    messages = []
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: SimpleNamespace(warning=messages.append))
    for _ in range(2):
        read((grey / 255).astype(np.float32), value_range=(0, 4093))
        read(grey.astype(np.float32), value_range=(0, 4093))
    (message,) = messages
    assert message.startswith('floating-point values in [0, 1] are all but one colour by value_range=(0, 4093)')


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_grey_whose_zero_is_white(tmp_path, grey, kind):
    values = grey[..., None].astype(kind) * kind(1 if kind is np.uint8 else 257)
    np.testing.assert_array_equal(read(write_tiff(tmp_path / 'a.tif', values, photometric=0))[..., 0], 255 - grey)
    np.testing.assert_array_equal(read(write_tiff(tmp_path / 'b.tif', values))[..., 0], grey)


def test_eight_bits_with_a_sign(tmp_path, grey):
    path = write_tiff(tmp_path / 'a.tif', (grey.astype(np.int16) - 128).astype(np.int8)[..., None])
    with pytest.raises(ValueError, match='a.tif: int8 values from -.* Set value_range'):
        read(path)
    np.testing.assert_array_equal(read(path, value_range=(-128, 127))[..., 0], grey)


def test_sixteen_bits_with_alpha(tmp_path, colour):
    path = write(tmp_path / 'a.png', np.dstack([colour, colour[..., :1]]).astype(np.uint16) * 257)
    np.testing.assert_array_equal(read(path), colour)


def test_twelve_bits_by_the_value_range(tmp_path, grey):
    path = write(tmp_path / 'a.png', grey.astype(np.uint16) * 16)
    assert np.abs(read(path, value_range=(0, 4095))[..., 0].astype(int) - grey).max() <= 1
    assert read(path).max() <= 16
    np.testing.assert_array_equal(read(path, value_range=(4080, 0))[..., 1], 255 - grey)


@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_floats_between_zero_and_one(tmp_path, grey, colour, kind):
    path = write(tmp_path / 'a.tif', (grey / 255).astype(np.float32))
    np.testing.assert_array_equal(read(path)[..., 2], grey)
    np.testing.assert_array_equal(read((colour / 255).astype(kind)), colour[..., ::-1])
    path = write(tmp_path / 'b.tif', (colour / 255).astype(np.float32))
    np.testing.assert_array_equal(read(path), colour)


@pytest.mark.parametrize(
    'values',
    [
        np.arange(600, dtype=np.int32).reshape(20, 30),
        np.arange(-300, 300, dtype=np.int16).reshape(20, 30),
        np.linspace(0, 255, 600, dtype=np.float32).reshape(20, 30),
        np.linspace(-1, 1, 600).reshape(20, 30),
        np.arange(600).reshape(20, 30),
        np.arange(600, dtype=np.uint32).reshape(20, 30),
    ],
    ids=lambda values: str(values.dtype),
)
def test_what_has_no_known_range_is_an_error(tmp_path, values):
    with pytest.raises(ValueError, match='the array: .*no known range.*value_range'):
        read(values)
    limits = (float(values.min()), float(values.max()))
    shown = read(values, value_range=limits)
    assert (shown.min(), shown.max()) == (0, 255) and (np.diff(shown[..., 0].ravel().astype(int)) >= 0).all()
    if values.dtype in (np.int32, np.float32):
        path = write(tmp_path / 'a.tif', values)
        with pytest.raises(ValueError, match=r'a.tif: .*no known range.*value_range'):
            read(path)
        np.testing.assert_array_equal(read(path, value_range=limits), shown)


def test_values_that_are_not_finite(grey):
    values = grey / 255
    values[0, :3] = np.nan
    with pytest.raises(ValueError, match='3 of 600 values are not finite'):
        read(values)


def test_eight_bits_stay_as_they_are(tmp_path, grey, colour):
    for values in (grey, colour):
        path = write(tmp_path / 'a.png', values)
        np.testing.assert_array_equal(read(path, value_range=(0, 4095)), read(path))


@pytest.mark.parametrize(
    'options',
    [dict(value_range=(1, 1)), dict(value_range=(0, 1, 2)), dict(bands=(0, 1)), dict(bands=(-1,)), dict(max_pixels=0)],
)
def test_options_that_mean_nothing(options):
    with pytest.raises(ValueError, match=f'{next(iter(options))} must be'):
        ImageReader(**options)


# ---- modes and bands


MODES = ('1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'CMYK', 'LAB', 'YCbCr')


@pytest.mark.parametrize(('mode', 'suffix'), itertools.product(MODES, ['png', 'tif', 'jpg', 'gif', 'webp', 'bmp']))
def test_eight_bits_of_every_mode_as_mmcv_reads_them(tmp_path, colour, mode, suffix):
    image = Image.fromarray(colour)
    image = Image.frombytes(mode, image.size, image.tobytes()) if mode == 'LAB' else image.convert(mode)
    if mode in ('RGBA', 'LA'):
        image.putalpha(Image.fromarray(colour[..., 1].copy()))
    path = tmp_path / f'a.{suffix}'
    try:
        image.save(path)
    except (OSError, ValueError):
        pytest.skip(f'Pillow writes no {suffix} of mode {mode}')
    np.testing.assert_array_equal(read(path), mmcv.imread(str(path), backend='pillow', channel_order='rgb'))


def test_bands_are_chosen(tmp_path, colour):
    infrared = 255 - colour[..., :1]
    values = np.dstack([colour, infrared])
    Image.fromarray(values).save(tmp_path / 'four.tif')
    np.testing.assert_array_equal(read(tmp_path / 'four.tif'), colour)
    np.testing.assert_array_equal(read(tmp_path / 'four.tif', bands=(3, 0, 1)), values[..., [3, 0, 1]])
    np.testing.assert_array_equal(read(tmp_path / 'four.tif', bands=(3,)), np.repeat(infrared, 3, 2))
    np.testing.assert_array_equal(read(values, bands=(3, 0, 1)), values[..., [3, 0, 1]])
    np.testing.assert_array_equal(read(torch.tensor(values).permute(2, 0, 1), bands=(3, 0, 1)), values[..., [3, 0, 1]])
    with pytest.raises(ValueError, match=r'bands=\(4,\) counts from 0, and the image has 4 bands'):
        read(tmp_path / 'four.tif', bands=(4,))
    sixteen = write(tmp_path / 'sixteen.tif', values.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read(sixteen, bands=(3, 0, 1)), values[..., [3, 0, 1]])


def test_more_bands_than_colours(tmp_path, colour):
    values = np.dstack([colour, 255 - colour]).astype(np.uint16) * 257
    path = write_tiff(tmp_path / 'six.tif', values)
    with pytest.raises(ValueError, match=r'six.tif: the image has 6 bands; say which .* "bands='):
        read(path)
    pytest.importorskip('tifffile')
    np.testing.assert_array_equal(read(path, bands=(3, 1, 2)), values[..., [3, 1, 2]] // 257)


def test_more_bands_without_their_decoder(tmp_path, colour, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'tifffile', None)
    path = write_tiff(tmp_path / 'six.tif', np.dstack([colour, colour]))
    with pytest.raises(OSError, match=r'six.tif: a TIFF of 6 bands that Pillow cannot read; pip install .*\[tiff\]'):
        read(path, bands=(0, 1, 2))


def test_two_plain_bands(colour):
    with pytest.raises(ValueError, match='must be uint8 .*bands'):
        read(colour[..., :2])
    np.testing.assert_array_equal(read(colour[..., :2], bands=(1,)), np.repeat(colour[..., 1:2], 3, 2))


# ---- arrays, tensors and Pillow images


def test_python_inputs_are_read_alike(tmp_path, colour, grey):
    bgr = np.ascontiguousarray(colour[..., ::-1])
    tensor = torch.tensor(colour).permute(2, 0, 1)
    same = [
        write(tmp_path / 'a.png', colour), Image.fromarray(colour), bgr, bgr.astype(np.uint16) * 257, bgr / 255, tensor,
        (bgr.astype(np.uint16) * 257).astype('>u2'), tensor / 255, (tensor / 255).double(),
        tensor.to(torch.uint16) * 257,
    ]  # fmt: skip
    for picture in same:
        np.testing.assert_array_equal(read(picture), colour)
    assert np.abs(read((tensor / 255).half()).astype(int) - colour).max() <= 1
    assert np.abs(read((tensor / 255).bfloat16()).astype(int) - colour).max() <= 1
    tensor = torch.tensor(grey)
    for picture in (grey, grey[..., None], tensor, tensor[None], Image.fromarray(grey), grey / 255):
        np.testing.assert_array_equal(read(picture), np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(read(grey > 99)[..., 0] > 0, grey > 99)


@pytest.mark.parametrize(
    'picture', [np.zeros((2, 2, 2, 3)), np.zeros((0, 3)), torch.zeros(8, 8, 3), torch.zeros(4, 8, 8)]
)
def test_shapes_that_are_no_images(picture):
    with pytest.raises(ValueError, match=r'must be (uint8 \(height, width, 3\), blue|\(3, height, width\), red) first'):
        read(picture)


def test_objects_that_are_no_images():
    with pytest.raises(ValueError, match='must be a path, an array, a tensor or a Pillow image; got int'):
        read(5)


def test_the_loader_takes_what_the_apis_of_mmseg_give_it(tmp_path, colour):
    path = write(tmp_path / 'a.png', colour)
    for given in (str(path), path, colour[..., ::-1], dict(img_path=str(path)), dict(img=colour[..., ::-1])):
        results = LoadImage()(given)
        np.testing.assert_array_equal(results['img'], colour[..., ::-1])
        assert results['img'].flags.c_contiguous and results['ori_shape'] == results['img_shape'] == (HEIGHT, WIDTH)
        assert results['img_path'] in (None, str(path), path)


# ---- sizes, damage and several pictures


def test_large_pictures_name_max_pixels(tmp_path, monkeypatch):
    path = write(tmp_path / 'a.png', np.zeros((40, 50), np.uint8))
    with pytest.raises(ValueError, match=r'a.png: 50 x 40 pixels are more than max_pixels=1999.*max_pixels=2000'):
        read(path, max_pixels=1999)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for suffix in ('png', 'tif', 'gif', 'jpg'):
            assert read(write(tmp_path / f'b.{suffix}', np.zeros((40, 50), np.uint8))).shape == (40, 50, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'gif', 'tif', 'webp', 'bmp', 'jp2'])
def test_damaged_files_are_named(tmp_path, colour, suffix):
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(colour).save(path)
    content = path.read_bytes()
    for kept in (len(content) // 2, 30, 4, 0):
        path.write_bytes(content[:kept])
        with pytest.raises(OSError, match=rf'^{path}: the image cannot be read'):
            read(path)
    path.write_bytes(b'<html>not found</html>')
    with pytest.raises(OSError, match=rf'^{path}: the image cannot be read'):
        read(path)


def test_of_several_pictures_the_first_is_read(tmp_path, colour):
    Image.fromarray(colour).save(tmp_path / 'a.tif', save_all=True, append_images=[Image.fromarray(255 - colour)])
    np.testing.assert_array_equal(read(tmp_path / 'a.tif'), colour)


# ---- one setting for all paths


@pytest.mark.parametrize('name', ['stego_mobilenet-v2_folder', 'stego_vit-s8_coco', 'smooseg_dinov2-vit-b14_potsdam'])
def test_one_setting_reaches_every_reader(name):
    config = read_config(str(CONFIGS / f'{name}.py'), dict(value_range=[0, 4095], bands=[2, 1, 0]))
    train = config.train_dataloader.dataset
    while 'dataset' in train:
        train = train.dataset
    steps = [
        train.pipeline[0], config.val_dataloader.dataset.pipeline[0], config.test_dataloader.dataset.pipeline[0],
        config.test_pipeline[0], config.tta_pipeline[0], config.default_hooks.visualization.backend_args,
    ]  # fmt: skip
    assert [(list(step.value_range), list(step.bands), step.max_pixels) for step in steps] == [
        ([0, 4095], [2, 1, 0], 178956970)
    ] * len(steps)


def test_ordinary_pipelines_of_configs(tmp_path, colour):
    config = read_config(str(CONFIGS / 'stego_mobilenet-v2_folder.py'), dict(value_range=[0, 4080]))
    plain = write(tmp_path / 'a.png', colour)
    deep = write(tmp_path / 'b.png', colour.astype(np.uint16) * 16)
    pipeline = Compose(config.test_pipeline)
    assert torch.equal(pipeline(dict(img_path=str(plain)))['inputs'], pipeline(dict(img_path=str(deep)))['inputs'])


def test_hooks_of_mmseg_read_by_the_reader(tmp_path, colour):
    path = write(tmp_path / 'a.png', colour.astype(np.uint16) * 16)
    content = get(str(path), dict(backend='image_reader', value_range=(0, 4080)))
    np.testing.assert_array_equal(mmcv.imfrombytes(content, channel_order='rgb'), colour)
    assert Image.open(io.BytesIO(content)).format == 'BMP'


@pytest.mark.parametrize('loader', [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='LoadImage')])
def test_data_sets_read_by_the_reader_whatever_loader_they_name(folder, loader):
    root = folder(count=2)
    pipeline = [loader, dict(type='LoadOptionalAnnotations'), dict(type='PackSegInputs')]
    options = dict(type='FolderSegDataset', data_root=str(root), split='train', num_classes=4, pipeline=pipeline)
    expected = [item['inputs'] for item in DATASETS.build(options)]
    for path in (root / 'images' / 'train').iterdir():
        write(path, np.array(Image.open(path)).astype(np.uint16) * 257)
    data = DATASETS.build(options)
    assert all(torch.equal(item['inputs'], other) for item, other in zip(data, expected))
    for path in (root / 'images' / 'train').iterdir():
        Image.fromarray(np.array(Image.open(path))[..., 0].astype(np.int32)).save(path.with_suffix('.tif'))
        path.unlink()
    with pytest.raises(ValueError, match=r'\.tif: int32 values .*value_range'):
        DATASETS.build(options)[0]


def test_caches_and_indices_know_how_images_were_read(folder):
    root, fingerprints = folder(count=2), []
    for options in (dict(), dict(value_range=(0, 4095)), dict(bands=(2, 1, 0))):
        pipeline = [dict(type='LoadImage', **options), dict(type='PackSegInputs')]
        settings = dict(data_root=str(root), split='train', num_classes=4, pipeline=pipeline)
        data = DATASETS.build(dict(type='FolderSegDataset', **settings))
        fingerprints.append(str(dataset_fingerprint(data)['pipeline']))
    assert len(set(fingerprints)) == 3


@pytest.mark.parametrize(
    'options',
    [
        dict(value_range=5), dict(value_range=True), dict(value_range=[0]), dict(value_range=[0, 1, 2]),
        dict(value_range=[3, 3]), dict(value_range=[0, float('inf')]), dict(value_range=[float('nan'), 1]),
        dict(value_range='ab'), dict(value_range=['a', 'b']), dict(value_range=[True, False]),
        dict(value_range='[0,4095]'), dict(bands=-1), dict(bands=2.5), dict(bands=[0, 1]), dict(bands=[True, 0, 1]),
        dict(bands='0'), dict(bands=[0, 1, -1]), dict(max_pixels=0), dict(max_pixels=2.5),
        dict(max_pixels=float('nan')), dict(max_pixels=float('inf')), dict(max_pixels=True), dict(max_pixels=None),
    ],
    ids=str,
)  # fmt: skip
def test_options_are_checked_where_the_step_is_built(options):
    (name,) = options
    for build in (ImageReader, LoadImage):
        with pytest.raises(ValueError, match=f'{name} must be .*got'):
            build(**options)


def test_one_band_may_be_a_number():
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    expected = np.repeat(values[..., 2:3], 3, axis=2)
    for bands in (2, [2], (2,)):
        assert (ImageReader(bands=bands).read(values).rgb == expected).all()
        assert (LoadImage(bands=bands)(dict(img=values))['img'] == expected).all()
