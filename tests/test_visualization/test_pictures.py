"""The three pictures: what is where in them, and the errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure
from PIL import Image

from omh_mmseg.transport import Hierarchy
from omh_mmseg.visualization import (
    cluster_palettes,
    distinct_colours,
    draw_hierarchy_tree,
    draw_plan_matrices,
    draw_segmentation_grid,
)
from omh_mmseg.visualization import plans as plans_module
from omh_mmseg.visualization.layout import cluster_order, parent_shares

MakeHierarchy = Callable[..., Hierarchy]
SHAPES = [(20, 30), (30, 20)]


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == 'PNG'
        return np.asarray(image.convert('RGB'))


def share_of(picture: np.ndarray, colour: np.ndarray) -> float:
    return float((picture == colour).all(axis=-1).mean())


def grid_arguments(hierarchy: Hierarchy) -> dict:
    rng = np.random.default_rng(0)
    return dict(
        images=[rng.integers(0, 255, (*shape, 3), dtype=np.uint8) for shape in SHAPES],
        levels=[[rng.integers(0, size, shape) for shape in SHAPES] for size in hierarchy.level_sizes],
        palettes=cluster_palettes(hierarchy),
        truth=[rng.integers(0, 3, shape) for shape in SHAPES],
        truth_palette=distinct_colours(3),
        classes=['sky', 'road', 'tree'],
    )


def test_grid_paints_each_label_in_its_colour(tmp_path: Path, make_hierarchy: MakeHierarchy) -> None:
    arguments = grid_arguments(make_hierarchy((2, 4)))
    arguments['levels'] = [[np.full(shape, 1) for shape in SHAPES], [np.full(shape, 3) for shape in SHAPES]]
    arguments['truth'] = [np.where(np.arange(shape[1]) < 10, 255, 2) * np.ones(shape, int) for shape in SHAPES]
    path = tmp_path / 'new' / 'folder' / 'grid.png'
    assert draw_segmentation_grid(path, **arguments) == path
    assert [file.name for file in path.parent.iterdir()] == ['grid.png']
    picture = opened(path)
    level1, level2 = (arguments['palettes'][level][label] for level, label in ((0, 1), (1, 3)))
    assert share_of(picture, level1) == pytest.approx(share_of(picture, level2), rel=0.03)
    assert share_of(picture, level1) > 0.1
    for neighbour in (0, 2):
        assert share_of(picture, arguments['palettes'][1][neighbour]) < 0.01
    # A third of the first truth and half of the second are ignored.
    assert 0.5 < share_of(picture, distinct_colours(3)[2]) / share_of(picture, level1) < 0.65


def test_grid_without_truth_and_with_titles(tmp_path: Path, make_hierarchy: MakeHierarchy) -> None:
    arguments = grid_arguments(make_hierarchy((2, 4)))
    for key in ('truth', 'truth_palette', 'classes'):
        del arguments[key]
    draw_segmentation_grid(tmp_path / 'a.png', **arguments, titles=['photo', 'coarse', 'fine'])
    with pytest.raises(ValueError, match='3 columns need as many titles, got 1'):
        draw_segmentation_grid(tmp_path / 'a.png', **arguments, titles=['photo'])


def test_grid_of_maps_alone(tmp_path: Path, make_hierarchy: MakeHierarchy) -> None:
    arguments = grid_arguments(make_hierarchy((2, 4)))
    with_images = opened(draw_segmentation_grid(tmp_path / 'a.png', **arguments))
    alone = opened(draw_segmentation_grid(tmp_path / 'b.png', **arguments | dict(images=None)))
    assert alone.shape[1] < 0.8 * with_images.shape[1]
    assert share_of(alone, arguments['palettes'][1][3]) > share_of(with_images, arguments['palettes'][1][3]) > 0.01
    arguments['levels'][1] = [np.zeros((20, 30), int)] * 2
    with pytest.raises(ValueError, match=r'level 2 of image 1 has size \(20, 30\) but its truth has \(30, 20\)'):
        draw_segmentation_grid(tmp_path / 'c.png', **arguments | dict(images=None))
    with pytest.raises(ValueError, match='nothing to draw: 0 images, 0 levels'):
        draw_segmentation_grid(tmp_path / 'c.png', None, [], [])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(images=[]), 'nothing to draw'),
        (dict(levels=[[np.zeros((20, 30), int)] * 2] * 2), r'level 1 of image 1 has size \(20, 30\)'),
        (dict(truth=[np.zeros((20, 30), int)]), 'truth has 1 label maps for 2 images'),
        (dict(palettes=[distinct_colours(6)]), '2 levels need as many palettes, got 1'),
        (dict(palettes=[distinct_colours(1), distinct_colours(4)]), r'label 1 of image 0 has no colour.*0\.\.0'),
        (dict(truth_palette=None), 'truth_palette'),
        (dict(classes=['sky']), '1 class names need as many colours in truth_palette, got 3'),
    ],
)
def test_grid_errors(tmp_path: Path, make_hierarchy: MakeHierarchy, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_segmentation_grid(tmp_path / 'grid.png', **grid_arguments(make_hierarchy((2, 4))) | change)
    assert not list(tmp_path.iterdir())


def test_order_makes_a_hierarchy_block_diagonal(make_hierarchy: MakeHierarchy) -> None:
    hierarchy = make_hierarchy((5, 10, 30))
    orders = cluster_order(hierarchy)
    for level, share in enumerate(parent_shares(hierarchy)):
        np.testing.assert_allclose(share.sum(axis=1), 1)
        ordered = share[np.ix_(orders[level + 1], orders[level])]
        assert (np.diff(ordered.argmax(axis=1)) >= 0).all()
        assert sorted(orders[level + 1]) == list(range(len(share)))


def test_plan_matrices_show_the_conditioned_plan(
    tmp_path: Path, make_hierarchy: MakeHierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return path

    monkeypatch.setattr(plans_module, 'save_figure', keep)
    hierarchy = make_hierarchy()
    draw_plan_matrices(tmp_path / 'plans.png', hierarchy)
    orders, shares = cluster_order(hierarchy), parent_shares(hierarchy)
    panels = [axes for axes in figures[0].axes if axes.get_title(loc='left')]
    for level, axes in enumerate(panels):
        np.testing.assert_allclose(axes.images[0].get_array(), shares[level][np.ix_(orders[level + 1], orders[level])])
        rows = [label.get_text() for label in axes.child_axes[0].get_yticklabels()]
        assert rows == [str(number) for number in orders[level + 1]]
        assert f'level {level + 2} in level {level + 1}' in axes.get_title(loc='left')
    assert len(panels) == 2


@pytest.mark.parametrize('sizes', [(6, 12, 24), (27, 54, 108), (3, 3), (1, 2), (4,), (2, 3, 5, 7, 11)])
def test_pictures_of_any_hierarchy(tmp_path: Path, make_hierarchy: MakeHierarchy, sizes: tuple[int, ...]) -> None:
    hierarchy = make_hierarchy(sizes)
    for draw in (draw_plan_matrices, draw_hierarchy_tree):
        assert opened(draw(tmp_path / 'picture.png', hierarchy)).std() > 10
    assert [file.name for file in tmp_path.iterdir()] == ['picture.png']
    assert not _pylab_helpers.Gcf.figs


def test_tree_greys_unused_clusters(tmp_path: Path, make_hierarchy: MakeHierarchy) -> None:
    hierarchy = make_hierarchy((3, 6))
    palettes = cluster_palettes(hierarchy)
    usage = [np.array([10.0, 20, 30]), np.array([0.0, 20, 30, 5, 5, 0])]
    picture = opened(draw_hierarchy_tree(tmp_path / 'tree.png', hierarchy, palettes, usage))
    everything = opened(draw_hierarchy_tree(tmp_path / 'all.png', hierarchy, palettes))
    for cluster, pixels in enumerate(usage[1]):
        assert (share_of(picture, palettes[1][cluster]) > 0) == (pixels > 0)
        assert share_of(everything, palettes[1][cluster]) > 0


def test_tree_shows_usage_by_area(tmp_path: Path, make_hierarchy: MakeHierarchy) -> None:
    hierarchy = make_hierarchy((2, 4))
    usage = [np.array([1.0, 1]), np.array([8.0, 2, 4, 4])]
    palettes = cluster_palettes(hierarchy)
    picture = opened(draw_hierarchy_tree(tmp_path / 'tree.png', hierarchy, palettes, usage))
    discs = picture[:, picture.shape[1] // 2 :]
    assert share_of(discs, palettes[1][0]) > 2 * share_of(discs, palettes[1][1])


def test_tree_writes_names(tmp_path: Path, make_hierarchy: MakeHierarchy) -> None:
    hierarchy = make_hierarchy((2, 4))
    plain = opened(draw_hierarchy_tree(tmp_path / 'a.png', hierarchy))
    names = [['sky', None], ['cloud', None, 'a rather long name of a class', 'sun']]
    named = opened(draw_hierarchy_tree(tmp_path / 'b.png', hierarchy, names=names))
    assert named.shape[1] > plain.shape[1]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(palettes=[distinct_colours(3)] * 2), r'sizes \[3, 3\] do not fit levels of \[3, 6\]'),
        (dict(usage=[np.ones(3), np.ones(5)]), r'usage of shapes .*5.* levels of \[3, 6\]'),
        (dict(usage=[np.ones(3)]), r'usage of shapes .* levels of \[3, 6\]'),
        (dict(usage=[np.ones(3), np.full(6, np.nan)]), 'usage of level 2'),
        (dict(names=[['a'] * 3, ['b'] * 2]), r'names of sizes \[3, 2\]'),
    ],
)
def test_tree_errors(tmp_path: Path, make_hierarchy: MakeHierarchy, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_hierarchy_tree(tmp_path / 'tree.png', make_hierarchy((3, 6)), **arguments)


def test_only_png(tmp_path: Path, make_hierarchy: MakeHierarchy) -> None:
    with pytest.raises(ValueError, match=r'\.png'):
        draw_plan_matrices(tmp_path / 'plans.pdf', make_hierarchy())
