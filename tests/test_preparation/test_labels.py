"""``tools/prepare.py labels``: colours become class numbers, and nothing is guessed."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omh_mmseg.datasets import FolderSegDataset

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'prepare.py'
COLOURS = np.array([[128, 0, 0], [0, 128, 0], [70, 70, 70]], np.uint8)
OPTION = ['--colours', '#800000', '#008000', '#464646']
CLASSES = np.random.default_rng(0).integers(0, 3, (10, 14)).astype(np.uint8)


@pytest.fixture
def prepare(monkeypatch):
    """Run ``prepare.py labels`` in this process."""
    main = runpy.run_path(str(TOOL))['main']
    return lambda *words: main(['labels', *map(str, words)])


@pytest.fixture
def source(tmp_path) -> Path:
    """Two labels in colours, one in a sub-folder whose name has a space."""
    for name in ('a.png', 'deep one/b.TIF'):
        path = tmp_path / 'colours' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOURS[CLASSES]).save(path)
    return tmp_path / 'colours'


def contents(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): np.array(Image.open(path)) for path in folder.rglob('*') if path.is_file()}


def spoil(path: Path, colour: tuple[int, int, int], pixels: int) -> None:
    picture = np.array(Image.open(path))
    picture[0, :pixels] = colour
    Image.fromarray(picture).save(path)


def test_colours_of_the_command_line(prepare, source, tmp_path, capsys):
    prepare(source, '--out', tmp_path / 'out', *OPTION)
    assert capsys.readouterr().out == f'2 labels converted to 3 classes: {tmp_path / "out"}\n'
    found = contents(tmp_path / 'out')
    assert set(found) == {'a.png', 'deep one/b.png'}
    for label in found.values():
        np.testing.assert_array_equal(label, CLASSES)
    picture = Image.open(tmp_path / 'out' / 'a.png')
    assert picture.mode == 'P' and picture.getpalette()[:9] == COLOURS.reshape(-1).tolist()
    before = (tmp_path / 'out' / 'a.png').stat().st_mtime_ns
    prepare(source, '--out', tmp_path / 'out', *OPTION)
    assert '0 labels converted to 3 classes, 2 are there already' in capsys.readouterr().out
    assert (tmp_path / 'out' / 'a.png').stat().st_mtime_ns == before


@pytest.mark.parametrize('form', ['json', 'text', 'mapping'])
def test_colours_of_a_file(prepare, source, tmp_path, form):
    names, words = ['roof', 'tree', 'road'], []
    if form == 'text':
        lines = [f'{name} {r} {g} {b}' for name, (r, g, b) in zip(names, COLOURS)]
        (tmp_path / 'palette.txt').write_bytes('\r\n'.join(lines).encode('utf-16'))
        words = ['--classes', tmp_path / 'palette.txt']
    elif form == 'json':
        (tmp_path / 'classes.json').write_text(json.dumps(dict(classes=names, palette=COLOURS.tolist())))
    else:
        colours = dict(zip(names, COLOURS.tolist()), ignored=[1, 2, 3])
        (source / 'classes.json').write_text(json.dumps(dict(classes=names, label_colours=colours)))
        spoil(source / 'a.png', (1, 2, 3), 4)
    prepare(source, '--out', tmp_path / 'out', *words)
    label = contents(tmp_path / 'out')['a.png']
    np.testing.assert_array_equal(label[1:], CLASSES[1:])
    assert (label[0, :4] == 255).all() == (form == 'mapping')


def test_unknown_colours_are_counted_and_named(prepare, source, tmp_path, capsys):
    spoil(source / 'a.png', (1, 2, 3), 5)
    out = ['--out', tmp_path / 'out', *OPTION]
    for words, others in ((['--dry-run'], 'fine'), ([], 'converted')):
        with pytest.raises(SystemExit) as error:
            prepare(source, *out, *words)
        text = str(error.value.code)
        assert text.startswith('prepare.py: ') and '\n' not in text
        assert '#010203 (1, 2, 3) in 5 pixels, in 1 of 2 labels, first' in text
        assert f'other 1 labels are {others}' in text
        assert '--ignored' in text and '--tolerance' in text and '--unknown ignore' in text
    assert set(contents(tmp_path / 'out')) == {'deep one/b.png'}
    prepare(source, *out, '--unknown', 'ignore')
    assert '255 for 1 colour that stands for no class, #010203' in capsys.readouterr().out
    assert (contents(tmp_path / 'out')['a.png'][0, :5] == 255).all()
    # What was ignored then is not taken for done now.
    with pytest.raises(SystemExit, match='in 5 pixels'):
        prepare(source, *out)
    prepare(source, *out, '--ignored', '#010203')
    assert '255 for' not in capsys.readouterr().out


def test_tolerance_takes_the_nearest_class_where_it_is_one(prepare, tmp_path):
    source = tmp_path / 'jpeg'
    source.mkdir()
    Image.fromarray(np.kron(COLOURS[CLASSES], np.ones((8, 8, 1), np.uint8))).save(source / 'a.jpg', quality=98)
    out = ['--out', tmp_path / 'out', *OPTION]
    with pytest.raises(SystemExit, match='a.jpg: JPEG changes values.*--tolerance'):
        prepare(source, *out)
    with pytest.raises(SystemExit, match=r'tolerance must lie in 0..34, got 35'):
        prepare(source, *out, '--tolerance', '35')
    prepare(source, *out, '--tolerance', '34', '--unknown', 'ignore')
    label = contents(tmp_path / 'out')['a.png'][4::8, 4::8]
    np.testing.assert_array_equal(label, CLASSES)


def test_transparent_pixels_need_a_background(prepare, source, tmp_path):
    picture = Image.open(source / 'a.png').convert('RGBA')
    picture.putalpha(Image.fromarray(np.where(CLASSES == 2, 0, 255).astype(np.uint8)))
    picture.save(source / 'a.png')
    out = ['--out', tmp_path / 'out', *OPTION]
    with pytest.raises(SystemExit, match='a.png: .* pixels are transparent.*--background'):
        prepare(source, *out)
    prepare(source, *out, '--background', '#464646')
    np.testing.assert_array_equal(contents(tmp_path / 'out')['a.png'], CLASSES)


def test_palettes_grey_and_bits_have_colours(prepare, tmp_path):
    source = tmp_path / 'colours'
    source.mkdir()
    Image.fromarray(COLOURS[CLASSES]).quantize(3).save(source / 'p.png')
    prepare(source, '--out', tmp_path / 'one', *OPTION)
    np.testing.assert_array_equal(contents(tmp_path / 'one')['p.png'], CLASSES)
    (source / 'p.png').unlink()
    Image.fromarray(CLASSES > 0).save(source / 'bit.png')
    Image.fromarray((CLASSES > 0).astype(np.uint8) * 255).save(source / 'grey.bmp')
    prepare(source, '--out', tmp_path / 'two', '--colours', '#000000', '#ffffff')
    for label in contents(tmp_path / 'two').values():
        np.testing.assert_array_equal(label, CLASSES > 0)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'which colour is which class.*--classes FILE'),
        (['--colours', '#80000'], "--colours: a colour must be '#rrggbb'"),
        (['--colours', '#800000', '#800000'], 'gives the colour #800000 .* to two classes'),
        ([*OPTION, '--ignored', '#008000'], '--ignored #008000 is the colour of a class'),
        ([*OPTION, '--classes', 'x.json'], 'give --classes or --colours'),
        (['--classes', 'absent.json'], 'absent.json'),
        ([*OPTION, '--out', '{source}'], 'would replace those in'),
        ([*OPTION, '--workers', '0'], 'workers must be at least 1'),
    ],
)
def test_wrong_arguments_end_with_one_line(prepare, source, tmp_path, words, message):
    with pytest.raises(SystemExit, match=rf'^prepare.py: .*{message}'):
        prepare(source, '--out', tmp_path / 'out', *[word.format(source=source) for word in words])
    assert not (tmp_path / 'out').exists()


def test_other_files_are_not_replaced(prepare, source, tmp_path):
    (tmp_path / 'out').mkdir()
    Image.fromarray(CLASSES).save(tmp_path / 'out' / 'a.png')
    with pytest.raises(SystemExit, match='out/a.png exists and was not made by this command; choose another --out'):
        prepare(source, '--out', tmp_path / 'out', *OPTION)
    np.testing.assert_array_equal(contents(tmp_path / 'out')['a.png'], CLASSES)


def test_what_was_converted_is_read_as_it_is(prepare, source, tmp_path):
    """Also with a colour for ignored pixels that a class of the palette has."""
    spoil(source / 'a.png', (0, 0, 0), 3)
    (tmp_path / 'images' / 'deep one').mkdir(parents=True)
    for name in ('a', 'deep one/b'):
        Image.new('RGB', (14, 10)).save(tmp_path / 'images' / f'{name}.png')
    (tmp_path / 'classes.json').write_text(json.dumps(dict(classes=list('abc'), palette=COLOURS.tolist())))
    prepare(source, '--out', tmp_path / 'labels', '--unknown', 'ignore')
    steps = ('LoadImageFromFile', 'LoadOptionalAnnotations', 'PackSegInputs')
    data = FolderSegDataset(str(tmp_path), pipeline=[dict(type=step) for step in steps])
    first, second = (item['data_samples'].gt_sem_seg.data[0].numpy() for item in data)
    assert (first[0, :3] == 255).all()
    np.testing.assert_array_equal(first[1:], CLASSES[1:])
    np.testing.assert_array_equal(second, CLASSES)
