from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from omh_mmseg.apis import draw_prediction_grid, find_images
from omh_mmseg.apis import prediction_grid as module
from omh_mmseg.apis.prediction_files import head_palettes
from omh_mmseg.apis.prediction_grid import GREY, SHADES, UNRELATED, find_labels
from omh_mmseg.registry import DATASETS


@pytest.fixture
def drawn(monkeypatch):
    """What `draw_segmentation_grid` was called with, by argument name."""
    names = ('path images levels palettes truth truth_palette classes titles note ignore_index').split()
    calls: list[dict] = []

    def keep(*arguments: object) -> object:
        calls.append(dict(zip(names, arguments, strict=True)))
        return arguments[0]

    monkeypatch.setattr(module, 'draw_segmentation_grid', keep)
    return calls


@pytest.fixture
def scenes(trained_demo, tmp_path):
    """Options that point the config's test split at four scenes, and the paths of their images."""
    options = {'test_dataloader.dataset.data_root': str(tmp_path / 'scenes')}
    options |= {f'test_dataloader.dataset.counts.{split}': 4 for split in ('train', 'val')}
    config = Config.fromfile(str(trained_demo.config))
    config.merge_from_dict(options)
    init_default_scope('mmseg')
    dataset = DATASETS.build(config.test_dataloader.dataset)
    return options, [dataset.get_data_info(index)['img_path'] for index in range(4)], dataset


@pytest.mark.slow
def test_rows_are_images_and_columns_are_levels(inferencer, folder, drawn, tmp_path):
    run, images = inferencer(), find_images(folder)
    assert draw_prediction_grid(tmp_path / 'grid.png', run, images) == tmp_path / 'grid.png'
    (call,) = drawn
    assert call['images'] is None and call['truth'] is None
    assert call['titles'] == ['level 1\n6 clusters', 'level 2\n12 clusters', 'level 3\n24 clusters']
    for row, image in enumerate(images):
        found = run(image).clusters
        for level in range(3):
            assert np.array_equal(call['levels'][level][row], found[f'level{level + 1}'])
    classes = np.array([[40 * index, 255 - 40 * index, 128] for index in range(6)])
    assert np.array_equal(call['palettes'][0], classes[[1, 0, 3, 2, 5, 4]])
    assert np.array_equal(call['truth_palette'], classes) and call['classes'][0] == 'ground'
    assert call['note'] == SHADES


def test_labels_of_the_test_split(inferencer, scenes, drawn, tmp_path):
    options, images, dataset = scenes
    run = inferencer(options=options, levels=[1])
    draw_prediction_grid(tmp_path / 'grid.png', run, images[1:3])
    (call,) = drawn
    for row in (0, 1):
        expected = dataset[row + 1]['data_samples'].gt_sem_seg.data[0].numpy()
        assert len(np.unique(expected)) > 1 and np.array_equal(call['truth'][row], expected)
    assert call['titles'] == ['labels', 'level 1\n6 clusters'] and call['note'] == ''


def test_images_without_labels_stay_white_among_others(inferencer, scenes, folder, drawn, tmp_path):
    options, images, _ = scenes
    draw_prediction_grid(tmp_path / 'grid.png', inferencer(options=options), [images[0], str(folder / 'a.png')])
    (call,) = drawn
    assert call['truth'][0].max() < 6 and (call['truth'][1] == 255).all() and call['truth'][1].shape == (96, 128)


def test_labels_follow_the_protocol(inferencer, scenes):
    options, images, _ = scenes
    run = inferencer(options=options, protocol='stego-64-no-crf')
    assert find_labels(run.model.cfg, images)[images[0]].shape == (64, 64) == run(images[0]).clusters['level1'].shape


def test_no_labels_without_the_data_set(inferencer, folder, monkeypatch):
    def absent(*_: object) -> None:
        raise FileNotFoundError('no folder')

    monkeypatch.setattr(DATASETS, 'build', absent)
    assert find_labels(inferencer().model.cfg, find_images(folder)) == {}


def test_notes_on_colours(inferencer, scenes, drawn, tmp_path):
    options, images, _ = scenes
    draw_prediction_grid(tmp_path / 'grid.png', inferencer('checkpoint', options=options), images[:1])
    run = inferencer(options=options)
    run.model.assignment.set('pred_level1', [1, 0, 3, 2, 5, -1])
    draw_prediction_grid(tmp_path / 'grid.png', run, images[:1])
    assert [call['note'] for call in drawn] == [f'{SHADES} {UNRELATED}', f'{SHADES} {GREY}']


@pytest.mark.slow
def test_rows_are_spread_evenly(inferencer, folder, drawn, tmp_path, monkeypatch):
    run, images = inferencer(), [str(folder / 'a.png')] * 10
    seen: list[str] = []
    original = run.iterate
    monkeypatch.setattr(run, 'iterate', lambda chosen: (seen.extend(chosen), original(chosen))[1])
    names = [f'{index}' for index in range(10)]
    monkeypatch.setattr(run, '_load', lambda name: type(run)._load(run, images[int(name)]))
    draw_prediction_grid(tmp_path / 'grid.png', run, names, rows=4)
    assert seen == ['0', '3', '6', '9']


@pytest.mark.slow
def test_photos_come_first_and_only_if_asked_for(inferencer, folder, tmp_path):
    run, path = inferencer(protocol='stego-64-no-crf'), tmp_path / 'grid.png'
    image = tmp_path / 'bright.png'
    Image.fromarray(np.full((80, 100, 3), (1, 254, 3), np.uint8)).save(image)

    def share(**options: object) -> float:
        picture = np.array(Image.open(draw_prediction_grid(path, run, [str(image)], **options)).convert('RGB'))
        return float((picture == (1, 254, 3)).all(axis=-1).mean())

    assert share() == 0 and share(photos=True) > 0.1


def test_probe_without_omh(inferencer, folder, drawn, tmp_path):
    run = inferencer(levels=[])
    draw_prediction_grid(tmp_path / 'grid.png', run, find_images(folder))
    assert drawn[0]['titles'] == ['probe\n6 clusters'] and drawn[0]['note'] == f'{GREY}'


def test_key_of_clusters_without_classes(inferencer, folder, drawn, scenes, tmp_path):
    draw_prediction_grid(tmp_path / 'grid.png', inferencer('checkpoint'), find_images(folder))
    (call,) = drawn
    sizes = dict(zip(('level 1', 'level 2', 'level 3'), (6, 12, 24)))
    assert call['truth'] is None
    keys = [f'{level}: {number}' for level, size in sizes.items() for number in range(size)]
    assert call['classes'][-42:] == keys
    assert np.array_equal(call['truth_palette'][-42:], np.concatenate(call['palettes']))
    # Beside labels, the names of the classes come first.
    options, images, _ = scenes
    draw_prediction_grid(tmp_path / 'grid.png', inferencer('checkpoint', options=options), images[:1])
    assert drawn[1]['classes'] == ['ground', 'plant', 'sky', 'building', 'vehicle', 'person', *keys]


def test_key_is_drawn(inferencer, folder, tmp_path):
    path = draw_prediction_grid(tmp_path / 'grid.png', inferencer('checkpoint', levels=[1]), [str(folder / 'a.png')])
    with_key = np.array(Image.open(path).convert('RGB'))
    palette = head_palettes(inferencer('checkpoint', levels=[1]))['level1']
    below = with_key[int(0.62 * len(with_key)) :].reshape(-1, 3)
    assert all((below == colour).all(axis=1).any() for colour in palette)


@pytest.mark.parametrize(('images', 'rows'), [([], 6), (['a.png'], 0)])
def test_nothing_to_draw(inferencer, tmp_path: Path, images, rows):
    with pytest.raises(ValueError, match=f'got rows={rows} and {len(images)} images'):
        draw_prediction_grid(tmp_path / 'grid.png', inferencer(), images, rows)
