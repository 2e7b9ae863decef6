"""Lists of images in every form that editors, shells and other tools leave them in."""

from __future__ import annotations

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omh_mmseg.datasets import Cityscapes27, COCOStuff27, FolderSegDataset
from omh_mmseg.datasets.lists import read_list

NAMES = ('plain', 'with space', 'a#1', '#first', 'köln', 'v1.5', 'town/deep one')


@pytest.fixture
def root(tmp_path) -> Path:
    for name in NAMES:
        path = tmp_path / 'images' / 'train' / f'{name}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
    return tmp_path


def listed(root: Path, content: str | bytes) -> list[str]:
    raw = content if isinstance(content, bytes) else content.encode()
    (root / 'list.txt').write_bytes(raw)
    data = FolderSegDataset(str(root), split='train', num_classes=2, ann_file='list.txt')
    paths = [Path(data.get_data_info(number)['img_path']) for number in range(len(data))]
    return [str(path.relative_to(root / 'images' / 'train').with_suffix('')) for path in paths]


FORMS = {
    'stems': lambda root, name: name,
    'files': lambda root, name: f'{name}.jpg',
    'other ending': lambda root, name: f'{name}.PNG',
    'trailing space': lambda root, name: f'{name} \t',
    'dot': lambda root, name: f'./{name}.jpg',
    'from the root': lambda root, name: f'images/train/{name}.jpg',
    'from the split': lambda root, name: f'train/{name}',
    'absolute': lambda root, name: f'{root}/images/train/{name}.jpg',
    'backslashes': lambda root, name: f'images\\train\\{name}.jpg'.replace('/', '\\'),
    'decomposed': lambda root, name: unicodedata.normalize('NFD', name),
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_of_a_name(root, form):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert listed(root, '\n'.join(FORMS[form](root, name) for name in NAMES)) == sorted(NAMES)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be'])
@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_every_encoding(root, encoding, end):
    assert listed(root, end.join([*NAMES, '']).encode(encoding)) == sorted(NAMES)


def test_comments_and_blank_lines(root):
    assert listed(root, '# my list\n\n   \nplain\n#first\n') == ['#first', 'plain']


def test_a_name_without_a_file_is_named_with_its_line(root):
    with pytest.raises(FileNotFoundError, match=r'list.txt lists 2 images \(of 3\) .*: gone, v1.6 \(line 2, 5\)'):
        listed(root, 'plain\ngone\n\n# comment\nv1.6\n')
    with pytest.raises(FileNotFoundError, match=r'deep one \(line 1\)\. Did you mean town/deep one\?'):
        listed(root, 'deep one\n')


@pytest.mark.parametrize('content', ['', '\n \n', '# nothing\n', b'\xef\xbb\xbf'])
def test_an_empty_list(root, content):
    with pytest.raises(ValueError, match=r'the list .*list.txt is empty'):
        listed(root, content)


def test_a_name_twice_is_taken_once_and_said(root):
    with pytest.warns(UserWarning, match=r'list.txt lists images more than once.*: plain \(lines 1 and 3\)'):
        assert listed(root, 'plain\nv1.5\nplain.jpg\n') == ['plain', 'v1.5']


def test_a_line_that_fits_two_images(tmp_path):
    images = {'a.jpg': str(tmp_path / 'a.jpg.png'), 'a': str(tmp_path / 'a.jpg')}
    (tmp_path / 'list.txt').write_text('a\na.jpg\n')
    with pytest.raises(ValueError, match=r"list.txt, line 2: 'a.jpg' fits several images: a, a.jpg"):
        read_list(tmp_path / 'list.txt', images, tmp_path)


def test_lists_of_the_published_sets(cityscapes, tmp_path):
    root = cityscapes()
    (root / 'cityscapes' / 'some.txt').write_bytes(
        'train/aachen/aachen_000001_000019_leftImg8bit.png\r\nzurich\\zurich_000000_000019\r\n'.encode('utf-16')
    )
    data = Cityscapes27(str(root), ann_file='some.txt')
    assert [Path(data.get_data_info(n)['img_path']).stem[:10] for n in range(2)] == ['aachen_000', 'zurich_000']
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
        (tmp_path / 'cocostuff' / kind / 'train2017').mkdir(parents=True)
        Image.new('L', (4, 4)).save(tmp_path / 'cocostuff' / kind / 'train2017' / f'7.{suffix}')
    (tmp_path / 'cocostuff' / 'curated' / 'train2017').mkdir(parents=True)
    (tmp_path / 'cocostuff' / 'curated' / 'train2017' / 'l.txt').write_bytes(b'\xef\xbb\xbf7.jpg\r\n7\r\n')
    with pytest.warns(UserWarning, match=r'7 \(lines 1 and 2\)'):
        assert len(COCOStuff27(str(tmp_path), ann_file='l.txt')) == 1
