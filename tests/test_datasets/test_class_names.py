"""Files with class names and colours."""

from __future__ import annotations

import json

import pytest

from omh_mmseg.datasets import FolderSegDataset
from omh_mmseg.datasets.class_names import read_class_file

NAMES = ['sky', 'main road', 'bäume']
PALETTE = [[70, 130, 180], [128, 64, 128], [0, 128, 0]]
BOTH = dict(zip(NAMES, PALETTE))
TEXTS = {
    'json': json.dumps(dict(classes=NAMES, palette=PALETTE), ensure_ascii=False, indent=1),
    'json with hex': json.dumps(dict(classes=NAMES, palette=['#4682b4', '#804080', '#008000'])),
    'colour last': '\n'.join(f'{name} {r} {g} {b}' for name, (r, g, b) in BOTH.items()),
    'colour first': '# comment\n\n' + '\n'.join(f'{r} {g} {b}\t{name}' for name, (r, g, b) in BOTH.items()),
    'table': 'name,r,g,b\n' + '\n'.join(f'{name},{r},{g},{b}' for name, (r, g, b) in BOTH.items()),
    'hex': '#4682b4 sky\nmain road #804080\nbäume: #008000',
    'cvat': '# label:color_rgb:parts:actions\n' + '\n'.join(f'{n}:{r},{g},{b}::' for n, (r, g, b) in BOTH.items()),
}


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le'])
@pytest.mark.parametrize('form', TEXTS)
def test_names_and_colours(tmp_path, form, encoding):
    (tmp_path / 'classes').write_bytes(TEXTS[form].replace('\n', '\r\n').encode(encoding))
    found = read_class_file(tmp_path / 'classes')
    assert (found.classes, found.palette) == (NAMES, PALETTE)


def test_names_alone(tmp_path):
    (tmp_path / 'classes.txt').write_text('sky\n# not one\nmain road,\nbäume\n', encoding='utf-8')
    found = read_class_file(tmp_path / 'classes.txt')
    assert (found.classes, found.palette) == (NAMES, [])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"classes": ["a",\n"b",\n]}', r'classes.json is not JSON: line [23], .*no comma before a closing bracket'),
        ('{"classes": ["a",\n"b"\n,"a"]}', r"classes.json, line 3: the class 'a' is there already, in line 1"),
        ('{"classes": ["a",\n5]}', r'classes.json, line 2: a class must have a name, got 5'),
        ('{"classes": ["a", ""]}', r"line 1: a class must have a name, got ''"),
        ('{"classes": ["a"],\n"palette": [\n[0, 0, 256]]}', r'classes.json, line 3: a colour must be .*256'),
        ('{"classes": ["a"], "palette": [\n[0, 0]]}', r'line 2: a colour must be'),
        ('{"classes": ["a"], "palette": [[0, 0.5, 1]]}', r'line 1: a colour must be'),
        ('{"classes": ["a"], "palette": ["red"]}', r'line 1: a colour must be'),
        ('{"classes": ["a"], "palette": [[0, 0, 0], [1, 1, 1]]}', 'the palette has 2 colours for 1 classes'),
        ('{"classes": "a"}', r'classes.json must be \{"classes"'),
        ('{"classes": ["a"], "palette": {"a": [0, 0, 0]}}', r'classes.json must be \{"classes"'),
        ('{"classes": ["a"],\n"classes": ["b"]}', r"line 2: the key 'classes' is there twice"),
        ('a\nb\n\na\n', r"classes.json, line 4: the class 'a' is there already, in line 1"),
        ('a 0 0 300\n', r'classes.json, line 1: a colour must be .*300'),
        ('a 0 0 0\nb\n', r"classes.json, line 2: 'b' has no colour, but others have"),
        ('# nothing\n', 'classes.json names no class'),
    ],
)
def test_what_is_wrong_has_file_and_line(tmp_path, text, message):
    (tmp_path / 'classes.json').write_text(text)
    with pytest.raises(ValueError, match=message):
        FolderSegDataset(str(tmp_path))


def test_a_text_file_names_the_classes_of_a_folder(folder):
    root = folder()
    (root / 'names.txt').write_bytes('a\r\nb\r\nc\r\nd'.encode('utf-16'))
    assert FolderSegDataset(str(root), 'train', classes_file='names.txt').metainfo['classes'] == tuple('abcd')
