"""Which files of a folder are images, and what is said of the others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from omh_mmseg.datasets.images.formats import image_suffixes
from omh_mmseg.datasets.images.listing import images_by_stem, list_images


def touch(path: Path, content: bytes = b'') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_what_pillow_reads_counts():
    suffixes = image_suffixes()
    for suffix in ('.gif', '.jp2', '.ppm', '.pgm', '.jfif', '.webp', '.tif', '.bmp', '.tga', '.ico', '.jpe'):
        assert suffix in suffixes
    for suffix in ('.pdf', '.eps', '.mpg', '.h5', '.hdf', '.txt', '.json', '.mat'):
        assert suffix not in suffixes


@pytest.mark.parametrize('suffix', ['gif', 'jp2', 'ppm', 'jfif', 'webp', 'TIF', 'tga', 'avif'])
def test_written_files_are_found_and_read(tmp_path, suffix):
    from omh_mmseg.datasets import ImageReader

    values = np.zeros((16, 16, 3), np.uint8)
    try:
        Image.fromarray(values).save(tmp_path / f'a.{suffix}', format='JPEG' if suffix == 'jfif' else None)
    except (OSError, ValueError, KeyError):
        pytest.skip(f'this Pillow writes no {suffix}')
    (path,) = list_images(tmp_path).images.values()
    assert ImageReader().read(path).rgb.shape == values.shape


def test_plugins_registered_later_count(tmp_path, monkeypatch):
    monkeypatch.setitem(Image.EXTENSION, '.own', 'PNG')
    touch(tmp_path / 'a.OWN')
    assert list(list_images(tmp_path).images) == ['a']


def test_everything_left_out_has_a_reason(tmp_path):
    for name in ('a.png', 'b.txt', 'c.txt', 'none', '.d.png', 'deep/e.jpg', '.hidden/f.png'):
        touch(tmp_path / name)
    (tmp_path / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    os.mkfifo(tmp_path / 'pipe.png')
    listing = list_images(tmp_path)
    assert list(listing.images) == ['a', 'deep/e']
    reasons = {os.path.basename(path): reason for path, reason in listing.skipped}
    assert reasons == {
        'b.txt': 'no image ending (.txt)', 'c.txt': 'no image ending (.txt)', 'none': 'no image ending (none)',
        '.d.png': 'a hidden file', '.hidden': 'a hidden folder', 'gone.png': 'a link to nothing',
        'pipe.png': 'not a file',
    }  # fmt: skip
    assert '2 left out, no image ending (.txt) (' in listing.describe_skipped()


def test_a_loop_of_links_counts_once(tmp_path):
    image = touch(tmp_path / 'inner' / 'one.png')
    (tmp_path / 'inner' / 'again').symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / 'above').symlink_to(tmp_path / 'inner', target_is_directory=True)
    (tmp_path / 'copy.png').symlink_to(image)
    listing = list_images(tmp_path)
    assert listing.images == {'inner/one': str(image)}
    assert {os.path.relpath(path, tmp_path) for path, _ in listing.skipped} == {'inner/again', 'above', 'copy.png'}


def test_links_out_of_the_folder_are_followed(tmp_path):
    touch(tmp_path / 'elsewhere' / 'two.png')
    root = tmp_path / 'root'
    touch(root / 'one.png')
    (root / 'link').symlink_to(tmp_path / 'elsewhere', target_is_directory=True)
    (root / 'file.png').symlink_to(touch(tmp_path / 'third.png'))
    assert sorted(list_images(root).images) == ['file', 'link/two', 'one']


def test_unreadable_folders_are_named(tmp_path, monkeypatch):
    touch(tmp_path / 'a.png')
    touch(tmp_path / 'locked' / 'b.png')
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith('locked'):
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', guarded)
    listing = list_images(tmp_path)
    assert list(listing.images) == ['a']
    assert listing.skipped == [(str(tmp_path / 'locked'), 'a folder that cannot be read (PermissionError)')]


def test_it_is_told_once(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', told.append)
    for name in ('a.png', 'b.txt', 'c.txt'):
        touch(tmp_path / name)
    for _ in range(3):
        images_by_stem(tmp_path)
    (text,) = told
    assert '1 images, 2 left out, no image ending (.txt)' in text


def test_links_that_lead_to_themselves_are_left_out(tmp_path):
    touch(tmp_path / 'a.png')
    for name, target in (('self.png', 'self.png'), ('p', 'q'), ('q', 'p')):
        (tmp_path / name).symlink_to(target)
    listing = list_images(tmp_path)
    assert list(listing.images) == ['a']
    assert listing.describe_skipped().startswith('3 left out, a link to nothing')
