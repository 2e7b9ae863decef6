"""Palettes: distinct, stable, and readable as a hierarchy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from omh_mmseg.transport import Hierarchy
from omh_mmseg.visualization import cluster_palettes, distinct_colours, match_colours
from omh_mmseg.visualization.colours import oklab_to_rgb, rgb_to_oklab


def distances(lab: np.ndarray) -> np.ndarray:
    return np.linalg.norm(lab[:, None] - lab[None], axis=-1) + np.eye(len(lab))


def test_oklab_round_trip() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (500, 3))
    np.testing.assert_array_equal(oklab_to_rgb(rgb_to_oklab(rgb)), rgb)
    np.testing.assert_allclose(rgb_to_oklab(np.array([255, 255, 255])), [1, 0, 0], atol=1e-4)


@pytest.mark.parametrize('count', [0, 1, 7, 8, 27, 60])
def test_distinct_colours(count: int) -> None:
    colours = distinct_colours(count)
    assert colours.shape == (count, 3)
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(colours, distinct_colours(60)[:count])
    if count > 1:
        assert distances(rgb_to_oklab(colours)).min() > 0.05


@pytest.mark.parametrize('sizes', [(6, 12, 24), (27, 54, 108), (3, 3), (1, 2, 4), (5,)])
def test_children_are_shades_of_their_parent(make_hierarchy: Callable[..., Hierarchy], sizes: tuple[int, ...]) -> None:
    hierarchy = make_hierarchy(sizes)
    palettes = cluster_palettes(hierarchy)
    assert [palette.shape for palette in palettes] == [(size, 3) for size in sizes]
    root = rgb_to_oklab(palettes[0])
    for level, palette in enumerate(palettes[1:], start=2):
        lab, ancestors = rgb_to_oklab(palette), hierarchy.ancestors(level).numpy()
        chroma = np.hypot(lab[:, 1], lab[:, 2])
        turn = np.arctan2(lab[:, 2], lab[:, 1]) - np.arctan2(root[ancestors, 2], root[ancestors, 1])
        turn = np.abs((turn + np.pi) % (2 * np.pi) - np.pi)
        # Leaving the screen's gamut costs some hue: most of them must be near, none far.
        assert np.median(turn[chroma > 0.03]) < np.deg2rad(10)
        assert turn[chroma > 0.05].max() < np.deg2rad(40)
        assert np.abs(lab[:, 0] - root[ancestors, 0]).max() < 0.25
        assert len(np.unique(palette, axis=0)) == len(palette)


def test_grandchildren_stay_in_their_parents_range() -> None:
    """All shades of one child are darker than all shades of the next."""
    plans = [np.ones((1, 2)) / 2, np.kron(np.eye(2), np.ones((1, 3))) / 6]
    palettes = cluster_palettes(Hierarchy.from_plans([1, 2, 6], [torch.from_numpy(plan) for plan in plans]))
    lightness = rgb_to_oklab(palettes[2])[:, 0]
    middle = rgb_to_oklab(palettes[0])[0, 0]
    assert lightness[:3].max() < middle < lightness[3:].min()


def test_only_child_keeps_the_colour(make_hierarchy: Callable[..., Hierarchy]) -> None:
    hierarchy = make_hierarchy((4, 4))
    first, second = cluster_palettes(hierarchy)
    np.testing.assert_array_equal(second, first[hierarchy.parents[0].numpy()])


def test_class_colours_by_assignment(make_hierarchy: Callable[..., Hierarchy]) -> None:
    classes = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    palettes = cluster_palettes(make_hierarchy((4, 8)), classes, [2, -1, 0, 3])
    assert palettes[0][[0, 2, 3]].tolist() == [[0, 255, 0], [0, 0, 0], [0, 0, 255]]
    assert len(set(palettes[0][1].tolist())) == 1
    assert len(np.unique(palettes[1], axis=0)) == 8


def test_unmatched_clusters_are_different_greys() -> None:
    colours = match_colours(distinct_colours(2), [-1, 0, -1, 1, -1])
    assert len(np.unique(colours, axis=0)) == 5


def test_errors(make_hierarchy: Callable[..., Hierarchy]) -> None:
    hierarchy = make_hierarchy((4, 8))
    with pytest.raises(ValueError, match='4 clusters but got 3 colours'):
        cluster_palettes(hierarchy, distinct_colours(3))
    with pytest.raises(ValueError, match=r'0\.\.2'):
        cluster_palettes(hierarchy, distinct_colours(3), [0, 1, 2, 3])
    with pytest.raises(ValueError, match='RGB'):
        cluster_palettes(hierarchy, np.full((4, 3), 300))
