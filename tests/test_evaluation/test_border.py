"""Clusters of the border, on features with a border built in and on ones without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from omh_mmseg.evaluation.border import BorderCounts, at_positions, border_sentence, describe
from omh_mmseg.models.utils.k_means import fit_centres

PROBE = 'pred_sem_seg'
SHAPE = (15, 20)
CHANNELS, CLUSTERS = 16, 6
Border = Callable[[np.ndarray, np.random.Generator], None]


def street(generator: np.random.Generator) -> np.ndarray:
    """Contents (h, w) of a street: sky above a skyline, houses, a pavement at both sides of the road."""
    rows, columns = np.indices(SHAPE)
    sky = generator.integers(1, 6) + generator.integers(0, 3, SHAPE[1])
    horizon = generator.integers(8, 12)
    content = np.where(rows < sky, 0, 1)
    content[(rows >= horizon)] = 2
    reach = (rows - horizon) * generator.uniform(0.8, 2.5) + 2
    content[(rows >= horizon) & (abs(columns - generator.uniform(8, 12)) < reach)] = 3
    return content


def counted(border: Border | None = None, images: int = 40, clusters: int = CLUSTERS) -> BorderCounts:
    """Clusters by k-means of features that show streets and, with ``border``, feel the border."""
    generator = np.random.default_rng(0)
    directions = 2 * generator.standard_normal((4, CHANNELS))
    features = []
    for _ in range(images):
        one = directions[street(generator)] + 0.6 * generator.standard_normal((*SHAPE, CHANNELS))
        if border is not None:
            border(one, generator)
        features.append(one)
    every = np.stack(features).reshape(-1, CHANNELS)
    centres = fit_centres(every, clusters, 0).numpy()
    nearest = ((every[:, None] - centres) ** 2).sum(2).argmin(1).reshape(images, *SHAPE)
    counts = BorderCounts({PROBE: clusters}, 16)
    for grid in nearest:
        counts.add_grid(PROBE, grid)
    counts.images = images
    return counts


def top_and_left(features: np.ndarray, _: np.random.Generator) -> None:
    features[0, :, 0] += 12
    features[:, 0, 1] += 12


def test_features_without_a_border():
    counts = counted()
    assert counts.shares(PROBE)[0, 0].max() > 0.5  # the sky
    assert counts.found(PROBE) == []
    assert border_sentence(counts) == 'No cluster lives on the border of the image.'


@pytest.mark.parametrize('clusters', [4, 6, 12, 24])
def test_numbers_of_clusters_without_a_border(clusters):
    assert counted(clusters=clusters).found(PROBE) == []


def test_features_with_a_border():
    counts = counted(top_and_left)
    found = {one.side: one for one in counts.border_clusters(PROBE)}
    assert set(found) == {'top', 'left'} and found['top'].cluster != found['left'].cluster
    for one in found.values():
        assert one.line == 1 and one.share > 0.85 and one.inside < 0.1 and one.on_border > 0.85
    said = border_sentence(counts)
    assert f'probe, cluster {found["left"].cluster}: ' in said and 'of the outermost column of positions at the' in said
    assert 'Conv2dAdaptivePadding' in said and 'reflect_padding=2' in said


@pytest.mark.parametrize('lines', [2, 3])
def test_a_border_of_several_lines(lines):
    def ring(features: np.ndarray, _: np.random.Generator) -> None:
        inside = np.zeros(SHAPE, bool)
        inside[lines:-lines, lines:-lines] = True
        features[~inside, 0] += 12

    found = counted(ring).border_clusters(PROBE)
    assert {one.side for one in found} >= {'left', 'right'} and {one.line for one in found} == {lines}
    assert describe(found[:1]).count(('second', 'third')[lines - 2]) == 1


def test_content_that_ends_at_the_same_row_of_all_images_is_no_border():
    """The bonnet of the car that carries the camera."""

    def bonnet(features: np.ndarray, _: np.random.Generator) -> None:
        features[-1, :, 0] += 12

    counts = counted(bonnet)
    (end,) = counts.found(PROBE)
    assert end.side == 'bottom' and end.share > 0.9
    assert counts.border_clusters(PROBE) == []
    assert 'No cluster lives on the border of the image, as none ends at its left or right: ' in border_sentence(counts)


def test_a_border_that_is_felt_in_some_images_alone():
    def sometimes(features: np.ndarray, generator: np.random.Generator) -> None:
        if generator.random() < 0.5:
            top_and_left(features, generator)

    found = counted(sometimes).border_clusters(PROBE)
    assert {one.side for one in found} == {'top', 'left'} and all(0.2 < one.share < 0.7 for one in found)


def test_few_images_say_nothing():
    counts = counted(top_and_left, images=7)
    assert counts.found(PROBE) == [] and '7 images are too few' in border_sentence(counts)


def test_positions_are_taken_at_their_centres():
    labels = torch.arange(24).repeat_interleave(2)[None].expand(30, 48)
    assert at_positions(labels, 10, 16).tolist() == [[4, 12, 20]] * 3
    # The last position of a padded image counts where its centre is in the image.
    assert at_positions(labels[:24, :41], 10, 16).tolist() == [[4, 12, 20]] * 2
    assert at_positions(labels[:26, :39], 10, 16).tolist() == [[4, 12]] * 3


def sample(labels: np.ndarray, **fields: np.ndarray) -> SegDataSample:
    """A predicted image of half the size in the network's input."""
    one = SegDataSample(metainfo=dict(img_shape=tuple(side // 2 for side in labels.shape)))
    for name, values in {PROBE: labels, **fields}.items():
        setattr(one, name, PixelData(data=torch.from_numpy(values)[None]))
    return one


def test_samples_are_counted_by_positions():
    counts = BorderCounts({PROBE: 3, 'pred_level1': 2, 'pred_level2': 4}, 8)
    labels = np.kron(np.array([[0, 0, 0], [1, 1, 2], [1, 1, 2], [2, 2, 2]]), np.ones((16, 16), int))
    counts.add([sample(labels, pred_level1=labels // 2), sample(labels)])
    assert counts.images == 2 and counts.totals[PROBE].tolist() == [6, 8, 10]
    assert counts.totals['pred_level1'].tolist() == [7, 5] and counts.totals['pred_level2'].sum() == 0
    top, left, bottom, right = counts.lines[PROBE]
    assert top[:3].tolist() == [[6, 0, 0], [0, 4, 2], [0, 0, 0]]
    assert bottom[:2].tolist() == [[0, 0, 6], [0, 4, 2]]
    assert left[:2].tolist() == [[2, 4, 2], [0, 0, 0]] and right[0].tolist() == [2, 0, 6]
    assert counts.shares(PROBE).shape == (4, 1, 3)  # columns have no second line short of the middle


def test_counts_of_processes_are_summed():
    sizes = {PROBE: 3, 'pred_level1': 2}
    parts = [BorderCounts(sizes, 4) for _ in range(2)]
    labels = np.random.default_rng(0).integers(0, 2, (2, 64, 64))
    for part, one in zip(parts, labels):
        part.add([sample(one, pred_level1=one)])
    together = BorderCounts(sizes, 4)
    together.add([sample(one, pred_level1=one) for one in labels])
    parts[0].take(parts[0].tensor() + parts[1].tensor())
    assert parts[0].images == 2
    for field in sizes:
        np.testing.assert_array_equal(parts[0].lines[field], together.lines[field])
        np.testing.assert_array_equal(parts[0].totals[field], together.totals[field])
