"""The folder of the page: its pictures, its figures, what it refuses, and that it appears complete or not at all."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image

from omh_mmseg.apis import SegmentationInferencer
from omh_mmseg.commands.explore import main
from omh_mmseg.explorer import ReportOptions, write_report
from omh_mmseg.explorer.pictures import (
    GRID_SIDE,
    resized_labels,
    runs,
    shown_size,
    write_level,
    write_photo,
    write_shade,
)
from omh_mmseg.explorer.report import MOST_BYTES
from omh_mmseg.explorer.statistics import LevelStatistics

QUIET = ReportOptions(progress=False)


def page_data(folder: Path) -> dict:
    text = (folder / 'index.html').read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_shades_are_clear_where_their_cluster_is_and_nowhere_else(report, models, images) -> None:
    for index, image in enumerate(images):
        expected = models.omh(image).clusters
        for level in (1, 2, 3):
            folder = report.folder / 'masks' / f'{index:04d}'
            shown = np.array(Image.open(folder / f'level{level}.png'))
            np.testing.assert_array_equal(shown, expected[f'level{level}'])
            there = {int(path.stem.partition('_')[2]) for path in folder.glob(f'level{level}_*.png')}
            assert there == set(np.unique(shown))
            for cluster in there:
                path = folder / f'level{level}_{cluster}.png'
                assert Image.open(path).mode == 'P' and path.stat().st_size < 2000
                alpha = np.array(Image.open(path).convert('RGBA'))[..., 3]
                np.testing.assert_array_equal(alpha, np.where(shown == cluster, 0, 255))


def test_figures_of_the_clusters(report, models, images) -> None:
    results = [models.omh(image) for image in images]
    hierarchy = models.omh.hierarchy
    for number, level in enumerate(report.summary['levels'], start=1):
        maps = [result.clusters[f'level{number}'] for result in results]
        pixels = sum(np.bincount(each.ravel(), minlength=len(level['clusters'])) for each in maps)
        shares = [cluster['share'] for cluster in level['clusters']]
        np.testing.assert_allclose(shares, pixels / pixels.sum(), atol=1e-6)
        for cluster, entry in enumerate(level['clusters']):
            having = [index for index, each in enumerate(maps) if (each == cluster).any()]
            assert entry['images'] == len(having) and set(entry['best']) == set(having)
            if number > 1:
                assert entry['parent'] == int(hierarchy.parents[number - 2][cluster])
        assert level['figures']['in_use'] == (pixels > 0).sum()
    assert [cluster['name'] for cluster in report.summary['levels'][0]['clusters'][:2]] == ['plant', 'ground']
    assert report.summary['levels'][0]['clusters'][5]['name'] is None
    for plan, given in zip(hierarchy.plans, report.summary['plans']):
        np.testing.assert_allclose(np.array(given['shares']), (plan / plan.sum(0)).T, atol=1e-4)
        assert given['entropy_weight'] == 0.05


def test_page_holds_what_the_script_reads_and_no_address(report) -> None:
    data = page_data(report.folder)
    assert data['images'][2]['name'] == '<i>c.png' and data['levels'][0]['clusters'][2]['name'] == '<b>sky</b>'
    text = (report.folder / 'index.html').read_text()
    assert '<b>sky' not in text and '<i>c.png' not in text
    assert not re.search(r'(src|href)="?https?:|@import|url\(', text)
    assert not re.search(r'/\*(STYLE|SCRIPT|DATA)\*/|<!--TITLE-->', text)
    for index, image in enumerate(data['images']):
        with Image.open(report.folder / 'images' / f'{index:04d}.jpg') as photo:
            assert photo.size == (image['width'], image['height'])
        columns, rows = image['grid']
        for level in image['levels']:
            assert sum(level['runs'][1::2]) == columns * rows
            assert sum(level['clusters'].values()) == pytest.approx(1, abs=1e-3)


def test_host_without_omh_has_one_level_and_says_so(models, images, tmp_path: Path) -> None:
    write_report(models.host, images[:1], tmp_path / 'report', options=ReportOptions(measure=False, progress=False))
    data = page_data(tmp_path / 'report')
    assert [level['title'] for level in data['levels']] == ['Cluster probe'] and data['plans'] == []
    assert 'no hierarchy' in data['note'] and 'knows no classes' in data['note']
    assert data['levels'][0]['figures'] is None
    assert (tmp_path / 'report/masks/0000/probe.png').is_file()


def test_labels_are_a_row_and_name_clusters(models, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = models.omh(images[0]).clusters['level1'] % 6
    finder = dict.fromkeys(images[:1], np.where(labels == labels[0, 0], 255, labels).astype(np.uint8))
    monkeypatch.setattr('omh_mmseg.explorer.report.LabelFinder', lambda config, images: finder.get)
    write_report(models.omh, images[:2], tmp_path / 'report', options=QUIET)
    data = page_data(tmp_path / 'report')
    assert [image['labels'] for image in data['images']] == [True, False]
    picture = np.array(Image.open(tmp_path / 'report/labels/0000.png').convert('RGBA'))
    np.testing.assert_array_equal(picture[..., 3] == 0, labels == labels[0, 0])
    for number in np.unique(labels[labels != labels[0, 0]]):
        cluster = data['levels'][0]['clusters'][number]
        assert cluster['purity'] == 1 and cluster['label'] == data['labels'][number]['name']


def test_images_are_spread_and_unreadable_ones_left_out(models, images, tmp_path: Path) -> None:
    (tmp_path / 'broken.png').write_text('no image')
    given = [images[0], str(tmp_path / 'broken.png'), images[1], images[2]]
    options = ReportOptions(most_images=2, side=48, progress=False)
    summary = write_report(models.host, given, tmp_path / 'report', options=options)
    assert [image['image'] for image in summary['images']] == [images[0], images[2]] and not summary['failed']
    assert '2 images of 4, spread evenly' in summary['facts']
    with Image.open(tmp_path / 'report/images/0000.jpg') as photo:
        assert photo.size == (48, 32)
    summary = write_report(models.host, given[:2], tmp_path / 'report', options=QUIET)
    assert [failure['image'] for failure in summary['failed']] == given[1:2]
    assert not (tmp_path / 'report/images/0001.jpg').exists()


def test_an_earlier_report_stays_until_the_new_one_is_complete(models, images, tmp_path: Path) -> None:
    out = tmp_path / 'report'
    write_report(models.host, images[:1], out, options=QUIET)
    before = (out / 'index.html').read_bytes()
    (tmp_path / 'broken.png').write_text('no image')
    with pytest.raises(OSError, match='none of 1 images could be read'):
        write_report(models.host, [str(tmp_path / 'broken.png')], out, options=QUIET)
    assert (out / 'index.html').read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {'report', 'broken.png'}
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.tex').write_text('...')
    with pytest.raises(ValueError, match='holds something else than a report'):
        write_report(models.host, images, tmp_path / 'mine', options=QUIET)
    with pytest.raises(ValueError, match='is a file'):
        write_report(models.host, images, tmp_path / 'broken.png', options=QUIET)


def test_nothing_of_the_user_is_lost_in_the_folder_of_a_report(models, images, tmp_path: Path) -> None:
    out = tmp_path / 'report'
    write_report(models.host, images[:1], out, options=QUIET)
    (out / '.DS_Store').write_text('of a file manager')
    write_report(models.host, images[:1], out, options=QUIET)
    for mine in ('notes.txt', 'mine/photo.png', 'images/0000.txt', 'masks/0000/level1_best.png'):
        (out / mine).parent.mkdir(exist_ok=True)
        (out / mine).write_text('mine')
        with pytest.raises(ValueError, match=rf'holds something else than a report, which would be lost \({mine}\)'):
            write_report(models.host, images, out, options=QUIET)
        assert (out / mine).read_text() == 'mine'
        (out / mine).unlink()


def test_two_images_of_one_name_are_told_apart(models, images, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ('u/x.png', 'v/x.png', 'y.png')]
    for path in paths:
        Path(path).parent.mkdir(exist_ok=True)
        shutil.copy(images[0], path)
    summary = write_report(models.host, paths, tmp_path / 'report', options=QUIET)
    assert [image['name'] for image in summary['images']] == [*paths[:2], 'y.png']


def test_a_link_to_a_folder_stays_one(models, images, tmp_path: Path) -> None:
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'real')
    for _ in range(2):
        write_report(models.host, images[:1], tmp_path / 'link', options=QUIET)
        assert (tmp_path / 'link').is_symlink() and (tmp_path / 'real/index.html').is_file()
    assert {path.name for path in tmp_path.iterdir()} == {'real', 'link'}


@pytest.mark.parametrize('levels', [[1], [2, 3], [3, 2, 1], []])
def test_a_page_of_some_levels_is_refused(models, images, tmp_path: Path, levels: list[int]) -> None:
    run = SegmentationInferencer(models.folder / 'omh.py', models.folder / 'omh.pth', 'cpu', levels)
    with pytest.raises(ValueError, match=r'all 3 levels in their order, and model.test_cfg.levels chooses .*=None'):
        write_report(run, images[:1], tmp_path / 'report', options=QUIET)
    run = SegmentationInferencer(models.folder / 'omh.py', models.folder / 'omh.pth', 'cpu', [1, 2, 3])
    assert len(write_report(run, images[:1], tmp_path / 'report', options=QUIET)['levels']) == 3


def test_command(models, images, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [str(models.folder / 'omh.py'), str(models.folder / 'omh.pth'), images[0], '--out', str(tmp_path / 'page')]
    main([*words, '--no-figures', '--device', 'cpu'])
    printed = capsys.readouterr().out
    assert f'page: {tmp_path / "page" / "index.html"}' in printed
    assert '6 → 12 → 24 clusters' in printed and (tmp_path / 'page/index.html').is_file()
    with pytest.raises(SystemExit, match=r'there is no image .*absent\.png'):
        main([*words[:2], 'absent.png', *words[3:]])
    with pytest.raises(SystemExit, match=r'side must be a whole number in \[32, 4096\]; got 1'):
        main([*words, '--side', '1'])


def test_sixty_images_take_less_than_the_limit(tmp_path: Path) -> None:
    """4:3 photos of noise, and levels of 11, 22 and 44 clusters that change at every position of the code."""
    random, size, total = np.random.default_rng(0), (360, 480), 0
    for _ in range(2):
        coarse = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        photo = coarse.resize(size[::-1], Image.Resampling.BICUBIC)
        write_photo(tmp_path / 'photo.jpg', np.asarray(photo), size)
        # The folder configs: 240 pixels at stride 16.
        code = torch.from_numpy(random.standard_normal((1, 16, 15, 20)).astype(np.float32))
        code = torch.nn.functional.interpolate(code, size=size, mode='bilinear')[0].flatten(1)
        total += (tmp_path / 'photo.jpg').stat().st_size
        for clusters in (11, 22, 44):
            centres = torch.from_numpy(random.standard_normal((clusters, 16)).astype(np.float32))
            shown = (centres @ code).argmax(0).reshape(size).numpy()
            write_level(tmp_path / 'level.png', shown, np.full((clusters, 3), 100))
            total += (tmp_path / 'level.png').stat().st_size
            for cluster in np.unique(shown):
                write_shade(tmp_path / 'shade.png', shown == cluster)
                total += (tmp_path / 'shade.png').stat().st_size
            grid = resized_labels(shown, (GRID_SIDE * 3 // 4, GRID_SIDE))
            total += len(json.dumps(runs(grid), separators=(',', ':')))
    assert 3e6 < 30 * total < MOST_BYTES - 5e5  # the rest is the page


def test_a_large_page_says_how_to_make_it_smaller(
    models, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(MMLogger, 'warning', lambda _, text: said.append(text))
    monkeypatch.setattr('omh_mmseg.explorer.report.MOST_BYTES', 40e3)
    summary = write_report(models.host, images, tmp_path / 'report', options=QUIET)
    fitting = max(1, int(3 * 40e3 / summary['bytes']))
    assert f'--most-images {fitting} makes it small enough, or --side below 480' in ''.join(said)


def test_best_examples_are_large_and_clear() -> None:
    level = LevelStatistics(2)
    clusters = np.array([[0, 0], [0, 1]])
    for index, margin in enumerate((0.1, 0.5, 0.3)):
        level.add(index, clusters, clusters, np.full((2, 2), margin))
    level.add(3, np.zeros((2, 2), int), np.zeros((2, 2), int), np.full((2, 2), 0.3))
    first, second = level.describe()
    assert first['best'] == [1, 3, 2, 0] and second['best'] == [1, 2, 0]
    assert first['share'] == 13 / 16 and second['images'] == 3 and second['margin'] == pytest.approx(0.3)


def test_sizes_and_runs() -> None:
    assert shown_size((960, 1280), 480) == (360, 480) and shown_size((20, 30), 480) == (20, 30)
    labels = np.arange(16).reshape(4, 4)
    np.testing.assert_array_equal(resized_labels(labels, (2, 2)), [[5, 7], [13, 15]])
    np.testing.assert_array_equal(resized_labels(labels, (8, 4))[::2], labels)
    assert runs(np.array([[1, 1, 2], [2, 2, 0]])) == [1, 2, 2, 3, 0, 1]
