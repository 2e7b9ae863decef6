"""mmseg's visualiser on predictions of another size and with more clusters than classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import VISUALIZERS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from omh_mmseg.visualization import UnsupervisedSegVisualizer, distinct_colours
from omh_mmseg.visualization.local_visualizer import fit_image


@pytest.fixture
def visualizer(request: pytest.FixtureRequest) -> Iterator[UnsupervisedSegVisualizer]:
    built = VISUALIZERS.build(dict(type='UnsupervisedSegVisualizer', name=request.node.nodeid, alpha=1.0))
    built.dataset_meta = dict(classes=('sky', 'road'), palette=[[0, 0, 255], [90, 90, 90]])
    yield built
    built.close()


def make_sample(pred: np.ndarray, truth: np.ndarray | None = None, **metainfo: object) -> SegDataSample:
    sample = SegDataSample(metainfo=metainfo)
    sample.pred_sem_seg = PixelData(data=torch.from_numpy(pred)[None])
    if truth is not None:
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth)[None])
    return sample


def position_image(height: int = 60, width: int = 100) -> np.ndarray:
    """Red is the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def drawn(path: Path, visualizer: UnsupervisedSegVisualizer, *arguments: object, **options: object) -> np.ndarray:
    visualizer.add_datasample('picture', *arguments, out_file=str(path / 'picture.png'), with_labels=False, **options)
    return mmcv.imread(str(path / 'picture.png'), channel_order='rgb')


def test_recorded_crop_is_applied() -> None:
    fitted = fit_image(position_image(), (30, 30), dict(scale_factor=(0.5, 0.5), crop_bbox=(5, 0, 35, 30)))
    assert fitted.shape == (30, 30, 3)
    np.testing.assert_allclose(fitted[15, [0, 29], 0], [10.5, 68.5], atol=1.5)
    np.testing.assert_allclose(fitted[[0, 29], 15, 1], [0.5, 58.5], atol=1.5)


def test_centre_is_taken_without_a_recorded_crop() -> None:
    fitted = fit_image(position_image(), (30, 30), dict(scale_factor=(0.5, 0.5)))
    np.testing.assert_allclose(fitted[15, [0, 29], 0], [20.5, 78.5], atol=1.5)


@pytest.mark.parametrize('metainfo', [{}, dict(scale_factor=(0.1, 0.1))])
def test_stretch_where_nothing_is_recorded(metainfo: dict) -> None:
    fitted = fit_image(position_image(), (30, 30), metainfo)
    np.testing.assert_allclose(fitted[15, [0, 29], 0], [1.2, 97.8], atol=1.5)


def test_equal_sizes_leave_the_image_alone() -> None:
    image = position_image()
    assert fit_image(image, (60, 100), dict(scale_factor=(0.5, 0.5))) is image


def test_draws_on_the_crop(tmp_path: Path, visualizer: UnsupervisedSegVisualizer) -> None:
    visualizer.alpha = 0.0
    labels = np.zeros((30, 30), np.int64)
    sample = make_sample(labels, labels, scale_factor=(0.5, 0.5), crop_bbox=(5, 0, 35, 30))
    picture = drawn(tmp_path, visualizer, position_image(), sample, with_image=True)
    expected = fit_image(position_image(), (30, 30), sample.metainfo)
    np.testing.assert_array_equal(picture, np.concatenate([expected] * 3, axis=1))


def test_truth_of_another_size(tmp_path: Path, visualizer: UnsupervisedSegVisualizer) -> None:
    truth = np.zeros((60, 100), np.int64)
    truth[:, 50:] = 1
    sample = make_sample(np.ones((30, 30), np.int64), truth)
    picture = drawn(tmp_path, visualizer, position_image(), sample)
    assert picture.shape == (30, 60, 3)
    assert picture[0, [0, 14, 15, 30], 2].tolist() == [255, 255, 90, 90]
    assert sample.gt_sem_seg.data.shape == (1, 60, 100)


def test_more_clusters_than_classes(tmp_path: Path, visualizer: UnsupervisedSegVisualizer) -> None:
    labels = np.array([[0, 1, 2, 9, 255, -1]] * 4).repeat(10, axis=0).repeat(10, axis=1)
    picture = drawn(tmp_path, visualizer, np.zeros((40, 60, 3), np.uint8), make_sample(labels))
    colours = [tuple(picture[0, 10 * i + 5]) for i in range(6)]
    assert colours[:2] == [(0, 0, 255), (90, 90, 90)]
    assert colours[4:] == [(0, 0, 0), (0, 0, 0)]
    assert len({*colours[:4], (0, 0, 0)}) == 5
    visualizer.add_datasample('named', np.zeros((40, 60, 3), np.uint8), make_sample(labels))


@pytest.mark.parametrize('meta', [dict(classes=None, palette=None), dict(classes=('sky', 'road'), palette=None), {}])
def test_data_set_without_names(tmp_path: Path, visualizer: UnsupervisedSegVisualizer, meta: dict) -> None:
    visualizer.dataset_meta = meta
    labels = np.arange(6)[None].repeat(4, axis=0)
    picture = drawn(tmp_path, visualizer, np.zeros((4, 6, 3), np.uint8), make_sample(labels))
    assert len(np.unique(picture[0], axis=0)) == 6


def test_same_label_places_as_mmseg(visualizer: UnsupervisedSegVisualizer) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        mask = (rng.random((12, 9)) < 0.2).astype(np.uint8)
        mask[3, 4] = 1
        np.testing.assert_array_equal(
            visualizer._get_center_loc(mask), SegLocalVisualizer._get_center_loc(visualizer, mask)
        )


def test_clusters_are_drawn_in_their_classes(visualizer: UnsupervisedSegVisualizer, tmp_path: Path) -> None:
    """The colours are those of the labels; what has no class has no colour, as pixels without a label."""
    image = np.full((4, 6, 3), 200, np.uint8)
    sample = make_sample(np.array([[0, 0, 1, 1, 2, 2]] * 4), cluster_classes=dict(pred_sem_seg=[1, 0, -1]))
    picture = drawn(tmp_path, visualizer, image, sample, draw_gt=False)
    assert (picture[:, :2] == [90, 90, 90]).all() and (picture[:, 2:4] == [0, 0, 255]).all()
    assert (picture[:, 4:] == 0).all()
    assert sample.pred_sem_seg.data[0, 0].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize('known', [{}, dict(pred_level1=[1, 0])])
def test_clusters_without_classes_have_no_name_of_a_class(
    visualizer: UnsupervisedSegVisualizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: dict
) -> None:
    names = []
    original = SegLocalVisualizer._draw_sem_seg

    def note(self, image, sem_seg, classes, palette, with_labels=True):
        names.append(list(classes))
        return original(self, image, sem_seg, classes, palette, with_labels)

    monkeypatch.setattr(SegLocalVisualizer, '_draw_sem_seg', note)
    sample = make_sample(np.array([[0, 1, 2]] * 4), np.array([[0, 1, 1]] * 4), cluster_classes=known)
    picture = drawn(tmp_path, visualizer, np.zeros((4, 3, 3), np.uint8), sample)
    truth, clusters = names
    assert set(truth) == {'sky', 'road'} and set(clusters) == {'cluster 0', 'cluster 1', 'cluster 2'}
    assert (picture[0, 3:] == distinct_colours(3)).all() and picture[0, 0].tolist() == [0, 0, 255]
    classes_now = make_sample(np.array([[0, 1, 1]] * 4), cluster_classes=dict(pred_clusters=[1, 0]))
    visualizer.add_datasample('classes', np.zeros((4, 3, 3), np.uint8), classes_now, with_labels=False)
    assert set(names[-1]) == set(truth)
