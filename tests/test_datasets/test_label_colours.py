"""Labels in colours, with palettes, grey levels, alpha and other habits of public data sets."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch.utils.data import DataLoader

from omh_mmseg.datasets import FolderSegDataset
from omh_mmseg.datasets.label_colours import colour_table, parse_colour
from omh_mmseg.utils.text import message_of

SIZE = (12, 16)
COLOURS = [(128, 0, 0), (0, 128, 0), (70, 70, 70)]
NAMES = ['roof', 'tree', 'road']
PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]


def classes_of(number: int) -> np.ndarray:
    """Classes 0..2 of one image."""
    return np.random.default_rng(number).integers(0, 3, SIZE).astype(np.uint8)


def with_palette(numbers: np.ndarray, palette: list[tuple[int, int, int]]) -> Image.Image:
    picture = Image.fromarray(numbers.astype(np.uint8), mode='P')
    picture.putpalette([channel for colour in palette for channel in colour])
    return picture


def in_colour(number: int) -> Image.Image:
    return Image.fromarray(np.array(COLOURS, np.uint8)[classes_of(number)])


def permuted(number: int) -> Image.Image:
    """A palette PNG whose numbers are in another order in each file."""
    order = np.roll(np.arange(3), number)
    return with_palette(np.argsort(order)[classes_of(number)], [COLOURS[one] for one in order])


@pytest.fixture
def photos(tmp_path) -> Callable[..., Path]:
    """``photos(label_of, count=3, suffix='.png', classes=...)``: images, and labels as ``label_of(number)`` draws."""

    def write(label_of: Callable[[int], Image.Image], count: int = 3, suffix: str = '.png', **classes: object) -> Path:
        for kind in ('images', 'labels'):
            (tmp_path / kind / 'train').mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new('RGB', SIZE[::-1]).save(tmp_path / 'images' / 'train' / f'{number:03d}.jpg')
            label_of(number).save(tmp_path / 'labels' / 'train' / f'{number:03d}{suffix}')
        if classes:
            (tmp_path / 'classes.json').write_text(json.dumps(classes))
        return tmp_path

    return write


def build(root: Path, **options: object) -> FolderSegDataset:
    named = (root / 'classes.json').is_file()
    defaults = dict(split='train', num_classes=None if named else 3, pipeline=PIPELINE)
    return FolderSegDataset(str(root), **(defaults | options))


def labels(data: FolderSegDataset) -> list[np.ndarray]:
    return [item['data_samples'].gt_sem_seg.data[0].numpy() for item in data]


def assert_read(data: FolderSegDataset) -> None:
    for number, label in enumerate(labels(data)):
        np.testing.assert_array_equal(label, classes_of(number))


# ---- colours


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P'])
@pytest.mark.parametrize('suffix', ['.png', '.tif', '.bmp'])
def test_the_palette_of_classes_json_reads_colours(photos, mode, suffix):
    def drawn(number: int) -> Image.Image:
        return in_colour(number).quantize(3) if mode == 'P' else in_colour(number).convert(mode)

    root = photos(drawn, suffix=suffix, classes=NAMES, palette=COLOURS)
    with warnings.catch_warnings():
        # The numbers of a palette that was made from the colours are in any order.
        warnings.filterwarnings('ignore', message='.*read by colour')
        assert_read(build(root, seg_map_suffix=suffix))


@pytest.mark.parametrize(
    'option',
    [
        COLOURS,
        ['#800000', '#008000', '#464646'],
        dict(zip(['class_2', 'class_0', 'class_1'], [COLOURS[2], COLOURS[0], COLOURS[1]])),
        [[COLOURS[0], (1, 1, 1)], [COLOURS[1]], COLOURS[2]],
    ],
)
def test_the_option_reads_colours(photos, option):
    assert_read(build(photos(in_colour), label_colours=option))


def test_grey_colours_and_bits(photos):
    root = photos(lambda n: Image.fromarray(classes_of(n) > 0))
    for label in labels(build(root, num_classes=2, label_colours=['#000000', '#ffffff'])):
        assert set(np.unique(label)) == {0, 1}
    for number, label in enumerate(labels(build(root, num_classes=2))):
        np.testing.assert_array_equal(label, classes_of(number) > 0)


def test_ignored_colours(photos):
    def bordered(number: int) -> Image.Image:
        picture = in_colour(number)
        picture.putpixel((0, 0), (224, 224, 192))
        return picture

    table = dict(zip(NAMES, COLOURS)) | dict(ignored='#e0e0c0')
    root = photos(bordered, classes=NAMES, palette=COLOURS, label_colours=table)
    assert all(label[0, 0] == 255 and label[1:].max() == 2 for label in labels(build(root)))
    with pytest.raises(ValueError, match=r'000.png: 1 colour that stands for no class, #e0e0c0 .* in 1 pixels'):
        build(root, label_colours=COLOURS)


def test_colours_without_a_table_are_refused_with_the_ways_out(photos):
    with pytest.raises(ValueError) as error:
        build(photos(in_colour))
    text = str(error.value)
    assert all(word in text for word in ('000.png', 'label_colours=', 'classes.json', 'prepare.py labels', '#800000'))


def test_a_late_unknown_colour_is_found_when_loaded(photos):
    root = photos(in_colour, count=40)
    picture = in_colour(21)
    picture.putpixel((3, 3), (1, 2, 3))
    picture.save(root / 'labels' / 'train' / '021.png')
    data = build(root, label_colours=COLOURS)
    with pytest.raises(ValueError, match=r'021.png: 1 colour .*#010203 \(1, 2, 3\) in 1 pixels'):
        data[21]


def test_an_error_of_a_worker_is_one_line(photos):
    root = photos(in_colour, count=40)
    Image.new('RGB', SIZE[::-1], (1, 2, 3)).save(root / 'labels' / 'train' / '021.png')
    loader = DataLoader(build(root, label_colours=COLOURS), batch_size=40, num_workers=1, collate_fn=pseudo_collate)
    with pytest.raises(ValueError, match='Traceback') as error:
        next(iter(loader))
    assert re.fullmatch(r'\S*021.png: 1 colour that stands for no class, .*', message_of(error.value))


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ([(0, 0, 0)] * 4, 'label_colours must be at most 3 RGB triples'),
        ([(0, 0, 0)] * 2, r'gives the colour #000000 \(0, 0, 0\) to two classes'),
        ([(0, 0, 300)], "a colour must be '#rrggbb' or"),
        (['red'], "a colour must be '#rrggbb' or"),
        (dict(lake=[0, 0, 0]), "gives colours to lake; the classes are class_0, class_1, class_2, and 'ignored'"),
        (True, 'label_colours must be at most 3'),
        ('colours.txt', 'label_colours must be True or False or Mapping or Sequence or None'),
    ],
)
def test_wrong_options(photos, option, message):
    with pytest.raises(ValueError, match=message):
        build(photos(in_colour), label_colours=option)


def test_parsed_colours():
    assert parse_colour('#0A0b0c') == parse_colour(np.array([10, 11, 12])) == (10, 11, 12)
    assert colour_table([[1, 2, 3]], ['a'], 'x') == {(1, 2, 3): 0}
    for wrong in (None, [1, 2], [True, 0, 0], 'abc', [-1, 0, 0]):
        with pytest.raises(ValueError, match='a colour must be'):
            parse_colour(wrong)


# ---- palettes


def test_palettes_that_differ_are_read_by_colour_where_colours_are_known(photos):
    root = photos(permuted, classes=NAMES, palette=COLOURS)
    with pytest.warns(UserWarning, match='do not number the classes as the known colours do.*read by colour'):
        data = build(root)
    assert_read(data)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert_read(build(root, label_colours=COLOURS))


def test_palettes_that_differ_are_refused_where_colours_are_unknown(photos):
    root = photos(permuted)
    with pytest.raises(ValueError, match=r'001.png: its palette gives the number .* do not mean the same') as error:
        build(root)
    assert all(word in str(error.value) for word in ('label_colours', 'classes.json', 'prepare.py labels'))
    stored = np.array(Image.open(root / 'labels' / 'train' / '001.png'))
    np.testing.assert_array_equal(labels(build(root, label_colours=False))[1], stored)


def test_a_late_palette_that_differs_is_found_when_loaded(photos):
    root = photos(lambda n: with_palette(classes_of(n), COLOURS), count=40)
    permuted(1).save(root / 'labels' / 'train' / '021.png')
    data = build(root)
    assert data[20]
    with pytest.raises(ValueError, match=r'021.png: its palette gives the number'):
        data[21]


def test_one_palette_in_another_order_than_the_classes(photos):
    root = photos(lambda n: with_palette(2 - classes_of(n), COLOURS[::-1]), classes=NAMES, palette=COLOURS)
    with pytest.warns(UserWarning, match='read by colour'):
        assert_read(build(root))
    np.testing.assert_array_equal(labels(build(root, label_colours=False))[0], 2 - classes_of(0))


def test_one_palette_that_contradicts_and_is_not_complete(photos):
    other = [COLOURS[1], (9, 9, 9), (8, 8, 8)]
    root = photos(lambda n: with_palette(classes_of(n), other), classes=NAMES, palette=COLOURS)
    with pytest.raises(ValueError, match=r'contradict the colours of the classes: number 0 has #008000 .*=False'):
        build(root)
    assert_read(build(root, label_colours=False))


@pytest.mark.parametrize('known', [True, False])
def test_palettes_that_agree_are_read_in_silence(photos, known):
    classes = dict(classes=NAMES, palette=COLOURS) if known else {}

    def voc(number: int) -> Image.Image:
        """As in Pascal VOC: a border of 255 in a colour of its own, and unused entries that differ."""
        values = classes_of(number)
        values[0] = 255
        return with_palette(values, [*COLOURS, *[(number, 0, 1)] * 252, (224, 224, 192)])

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        data = build(photos(voc, **classes))
    for number, label in enumerate(labels(data)):
        assert (label[0] == 255).all()
        np.testing.assert_array_equal(label[1:], classes_of(number)[1:])


def test_palettes_of_other_colours_are_read_by_number(photos):
    other = [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert_read(build(photos(lambda n: with_palette(classes_of(n), other), classes=NAMES, palette=COLOURS)))


def test_palettes_and_reduce_zero_label(photos):
    root = photos(lambda n: with_palette(classes_of(n) + 1, [(0, 0, 0), *COLOURS]), classes=NAMES, palette=COLOURS)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert_read(build(root, reduce_zero_label=True))
    with pytest.raises(ValueError, match='reduce_zero_label lowers'):
        build(root, reduce_zero_label=True, label_colours=COLOURS)


def test_a_palette_with_transparency_is_a_palette(photos):
    def drawn(number: int) -> Image.Image:
        picture = with_palette(classes_of(number), COLOURS)
        picture.info['transparency'] = 0
        return picture

    root = photos(drawn)
    assert_read(build(root))
    assert_read(build(root, label_colours=COLOURS))


# ---- alpha


def test_an_opaque_alpha_channel_says_nothing(photos):
    assert_read(build(photos(lambda n: Image.fromarray(classes_of(n)).convert('LA'))))


@pytest.mark.parametrize('mode', ['LA', 'RGBA'])
def test_transparent_pixels_are_refused(photos, mode):
    def clear(number: int) -> Image.Image:
        picture = (in_colour(number) if mode == 'RGBA' else Image.fromarray(classes_of(number))).convert(mode)
        picture.putalpha(Image.fromarray(np.where(classes_of(number) == 0, 0, 255).astype(np.uint8)))
        return picture

    root = photos(clear)
    count = int((classes_of(0) == 0).sum())
    with pytest.raises(ValueError, match=f'000.png: {count} pixels are transparent.*--background'):
        build(root, **(dict(label_colours=COLOURS) if mode == 'RGBA' else {}))


# ---- values


@pytest.mark.parametrize('values', [(0, 255), (0, 127, 255), (3, 50, 1000), (7, 8, 9)])
def test_values_of_any_kind(photos, values):
    picks = np.array(values)

    def grey(number: int) -> Image.Image:
        drawn = picks[classes_of(number) % len(picks)]
        return Image.fromarray(drawn.astype(np.uint16 if max(values) > 255 else np.uint8))

    root = photos(grey)
    for option in (list(values), {value: number for number, value in enumerate(values)}):
        for number, label in enumerate(labels(build(root, num_classes=len(values), label_map=option))):
            np.testing.assert_array_equal(label, classes_of(number) % len(values))


@pytest.mark.parametrize('num_classes', [2, 5])
def test_masks_of_0_and_255_are_refused_with_the_way_out(photos, num_classes):
    root = photos(lambda n: Image.fromarray((classes_of(n) > 0).astype(np.uint8) * 255))
    with pytest.raises(ValueError, match=r'hold only 0 and 255\. .*label_map=\[0,255\].*\{0: 0, 255: 1\}'):
        build(root, num_classes=num_classes)
    kept = build(root, num_classes=2, label_map={0: 0, 1: 1, 255: 255})
    assert set(np.unique(labels(kept)[0])) == {0, 255}
    assert set(np.unique(labels(build(root, num_classes=2, ignore_index=254, label_map=[0, 255]))[0])) == {0, 1}


def test_grey_levels_are_named_with_the_map_for_them(photos):
    root = photos(lambda n: Image.fromarray(classes_of(n) * np.uint8(50)))
    with pytest.raises(ValueError, match=r'the value.*accepted are 0\.\.2, 255\..*set label_map=\[0, 50, 100\]'):
        build(root)
    with pytest.raises(ValueError, match=r'hold 3 values: 0, 50, 100\. Set num_classes to their number, or label_map'):
        build(root, num_classes=2)


def test_no_data_is_named(photos):
    root = photos(lambda n: Image.fromarray(classes_of(n) + np.uint8(1)))
    with pytest.raises(ValueError, match=r'the value 3; .*Set reduce_zero_label=True if 0 stands for no class'):
        build(root)
    assert_read(build(root, reduce_zero_label=True))
    assert_read(build(root, label_map={0: 255, 1: 0, 2: 1, 3: 2}))


@pytest.mark.parametrize('option', [{0: 5}, {0: 'a'}, [0, 0], {'0': 1}, 'abc', [0, 1, 2, 3], 7])
def test_wrong_maps(photos, option):
    with pytest.raises(ValueError, match='label_map must (give each value a class.*classes are 0..2|be several)'):
        build(photos(lambda n: Image.fromarray(classes_of(n))), label_map=option)


# ---- files


@pytest.mark.parametrize(
    ('suffix', 'options'), [('.jpg', {}), ('.tif', dict(compression='jpeg')), ('.webp', dict(quality=50))]
)
def test_formats_that_change_values_are_refused(photos, suffix, options):
    root = photos(lambda n: Image.fromarray(classes_of(n)))
    for path in (root / 'labels' / 'train').iterdir():
        Image.open(path).save(path.with_suffix(suffix), **options)
    with pytest.raises(ValueError, match=rf'000{suffix}: .* changes values.*prepare.py labels .* --tolerance'):
        build(root, seg_map_suffix=suffix)


def test_a_lossy_file_with_another_ending_and_a_lossless_webp(photos):
    root = photos(lambda n: Image.fromarray(classes_of(n)).convert('RGB'))
    Image.fromarray(classes_of(0)).save(root / 'labels' / 'train' / '000.png', format='JPEG')
    with pytest.raises(ValueError, match='000.png: JPEG changes values'):
        build(root)
    for number in range(3):
        in_colour(number).save(root / 'labels' / 'train' / f'{number:03d}.webp', lossless=True)
    assert_read(build(root, seg_map_suffix='.webp', label_colours=COLOURS))


def test_arrays_are_refused_by_name(photos):
    root = photos(lambda n: Image.fromarray(classes_of(n)))
    for number in range(3):
        np.save(root / 'labels' / 'train' / f'{number:03d}.npy', classes_of(number))
    with pytest.raises(OSError, match='000.npy: the label cannot be read .*Labels are pictures such as PNG'):
        build(root, seg_map_suffix='.npy')


def test_the_ending_of_labels_may_have_any_case(photos):
    root = photos(lambda n: Image.fromarray(classes_of(n)))
    for path in [*(root / 'labels' / 'train').iterdir()][:2]:
        path.rename(path.with_suffix('.PNG'))
    assert_read(build(root))


@pytest.mark.parametrize('ending', ['_mask.png', '_gt.PNG', '.tif', '-label.bmp'])
def test_another_ending_is_named(photos, ending):
    root = photos(lambda n: Image.fromarray(classes_of(n)))
    for path in (root / 'labels' / 'train').iterdir():
        Image.open(path).save(path.with_name(path.stem + ending))
        path.unlink()
    with pytest.raises(FileNotFoundError, match=f"3 of 3 images have no label.*set seg_map_suffix='{ending}'"):
        build(root)
    assert_read(build(root, seg_map_suffix=ending))


def test_labels_without_the_stem_of_an_image_are_shown(photos):
    root = photos(lambda n: Image.fromarray(classes_of(n)))
    for path in (root / 'labels' / 'train').iterdir():
        path.rename(path.with_name(f'mask{path.name}'))
    with pytest.raises(FileNotFoundError, match='The folder holds mask000.png, .*Add them'):
        build(root)


def test_the_size_error_names_a_turned_image(photos):
    root = photos(lambda n: Image.fromarray(classes_of(n).T.copy()))
    with pytest.raises(ValueError, match='the label is 16x12 .* is 12x16; one is the other turned, as by an EXIF'):
        build(root)
