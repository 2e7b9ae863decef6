from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from omh_mmseg.apis import collect_images


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    for name in ('one/a.png', 'one/deep/b.png', 'two/a.png', 'c.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(tmp_path / name)
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ('paths', 'images', 'root'),
    [
        (['one'], ['one/a.png', 'one/deep/b.png'], 'one'),
        (['c.png', 'one/a.png'], ['c.png', 'one/a.png'], None),
        (['one', 'two'], ['one/a.png', 'one/deep/b.png', 'two/a.png'], '.'),
        (['c.png', 'two', 'one/a.png'], ['c.png', 'two/a.png', 'one/a.png'], '.'),
        (['one/a.png', './one', 'one/deep'], ['one/a.png', './one/deep/b.png'], '.'),
    ],
)
def test_files_and_folders(here, paths, images, root):
    found, above, skipped = collect_images(paths)
    assert [os.path.normpath(image) for image in found] == [os.path.normpath(image) for image in images]
    assert skipped == []
    assert above is None if root is None else Path(above).resolve() == (here / root).resolve()


@pytest.mark.parametrize(
    ('paths', 'message'),
    [
        (['one', 'absent'], 'there is no folder absent (looked from'),
        (['absent.jpg', 'one'], 'there is no image absent.jpg (looked from'),
        (['one', 'x.png', 'two', 'y'], 'there is no image x.png, no folder y (looked from'),
        (['one', 'empty'], 'there are no images in empty'),
    ],
)
def test_what_is_missing_is_named_and_nothing_else(here, paths, message):
    with pytest.raises(FileNotFoundError) as error:
        collect_images(paths)
    assert str(error.value).startswith(message)


def test_a_video_is_sent_to_the_command_for_videos(here):
    (here / 'clip.MP4').write_bytes(b'')
    with pytest.raises(ValueError, match=r'no videos \(clip.MP4\): python .*tools/predict.py segments those'):
        collect_images(['one', 'clip.MP4'])


@pytest.mark.parametrize('paths', [['one', 'one/', './one'], ['one', 'link'], ['link', 'one', 'two/inner']])
def test_what_several_paths_reach_counts_once(here, paths):
    """Images, what is left out, and links: the summary accounts for each entry of a folder once."""
    (here / 'one' / 'notes.txt').write_text('no image')
    (here / 'one' / 'alias.png').symlink_to('a.png')
    (here / 'link').symlink_to('one', target_is_directory=True)
    (here / 'two' / 'inner').symlink_to(here / 'one' / 'deep', target_is_directory=True)
    found, _, skipped = collect_images(paths)
    assert {Path(image).resolve() for image in found} == {here / 'one' / 'a.png', here / 'one' / 'deep' / 'b.png'}
    assert len(found) == 2 and sorted(Path(path).name for path, _ in skipped) == ['alias.png', 'notes.txt']


def test_a_link_to_another_image_is_left_out_by_name(here):
    (here / 'two' / 'alias.png').symlink_to(here / 'one' / 'a.png')
    found, _, skipped = collect_images(['one', 'two', 'c.png'])
    assert len(found) == 4
    assert skipped == [('two/alias.png', 'the same file as another image')]
