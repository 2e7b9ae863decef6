"""Matching and scores against the reference's arrays, docs/methods/test_vectors.md A.8 and hand-made cases."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as random_arrays

from omh_mmseg.evaluation.scores import (
    confusion_matrix,
    hungarian_assignment,
    identity_assignment,
    majority_assignment,
    match_clusters,
    scores_from_confusion,
    without_extra_clusters,
)
from omh_mmseg.structures.assignment import UNMATCHED


def golden_counts(arrays: dict[str, np.ndarray], case: str, num_predicted: int, num_classes: int) -> np.ndarray:
    return sum(
        confusion_matrix(arrays[f'{case}/pred{b}'], arrays[f'{case}/gt{b}'], num_predicted, num_classes, -1)
        for b in range(3)
    )


@pytest.mark.golden
@pytest.mark.parametrize('case', ['cluster27', 'linear27', 'potsdam3', 'absent'])
def test_golden(golden: Callable[[str], dict[str, np.ndarray]], case: str) -> None:
    arrays = golden('metrics')
    stats = arrays[f'{case}/stats']
    counts = golden_counts(arrays, case, *stats.shape)
    np.testing.assert_array_equal(counts, stats)

    if case == 'linear27':
        assignment = identity_assignment(*stats.shape)
    else:
        assignment = hungarian_assignment(counts)
        np.testing.assert_array_equal(assignment[arrays[f'{case}/rows']], arrays[f'{case}/cols'])
    scores = scores_from_confusion(counts, assignment)
    np.testing.assert_allclose(scores.mean_iou, arrays[f'{case}/mIoU'], rtol=1e-5)
    np.testing.assert_allclose(scores.pixel_accuracy, arrays[f'{case}/Accuracy'], rtol=1e-5)


@pytest.mark.golden
def test_extra_clusters_keep_every_pixel(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    """The reference drops the pixels of surplus clusters; here they stay and count as misses."""
    arrays = golden('metrics')
    num_predicted, num_classes = arrays['extra/stats'].shape
    counts = golden_counts(arrays, 'extra', num_predicted, num_classes)
    assert counts.sum() == sum((arrays[f'extra/gt{b}'] >= 0).sum() for b in range(3))
    scores = scores_from_confusion(counts, hungarian_assignment(counts))
    assert (scores.assignment == UNMATCHED).sum() == num_predicted - num_classes
    hits = sum(counts[k, c] for k, c in enumerate(scores.assignment) if c != UNMATCHED)
    assert scores.pixel_accuracy == pytest.approx(100 * hits / counts.sum())
    assert scores.pixel_accuracy < arrays['extra/Accuracy']


@pytest.mark.golden
def test_golden_extra_clusters_dropped(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    """The reference's treatment, on request only."""
    arrays = golden('metrics')
    counts = without_extra_clusters(golden_counts(arrays, 'extra', *arrays['extra/stats'].shape))
    np.testing.assert_array_equal(counts, arrays['extra/stats'])
    assignment = hungarian_assignment(counts)
    np.testing.assert_array_equal(assignment[arrays['extra/rows']], arrays['extra/cols'])
    scores = scores_from_confusion(counts, assignment)
    np.testing.assert_allclose(scores.mean_iou, arrays['extra/mIoU'], rtol=1e-5)
    np.testing.assert_allclose(scores.pixel_accuracy, arrays['extra/Accuracy'], rtol=1e-5)


def appendix_vectors() -> tuple[np.ndarray, np.ndarray]:
    t = np.arange(4000)
    return (t * t // 3 + t // 11) % 4, (7 * t) % 5 - 1


def test_appendix_a8() -> None:
    pred, true = appendix_vectors()
    counts = confusion_matrix(pred, true, 4, 4, ignore_index=-1)
    assignment = hungarian_assignment(counts)
    assert assignment.tolist() == [1, 3, 2, 0]
    scores = scores_from_confusion(counts, assignment)
    assert scores.mean_iou == pytest.approx(14.384907, abs=1e-5)
    assert scores.pixel_accuracy == pytest.approx(25.156250, abs=1e-5)

    identity = scores_from_confusion(counts)
    assert identity.mean_iou == pytest.approx(14.303267, abs=1e-5)
    assert identity.pixel_accuracy == pytest.approx(25.031251, abs=1e-5)


def test_appendix_a8_absent_class() -> None:
    pred, true = appendix_vectors()
    true = np.where(true == 3, 0, true)
    counts = confusion_matrix(pred, true, 4, 4, ignore_index=-1)
    scores = scores_from_confusion(counts, hungarian_assignment(counts))
    assert scores.absent == [3]
    assert scores.iou[3] == 0
    assert np.isnan(scores.accuracy[3])
    assert scores.mean_iou == pytest.approx(12.341726, abs=1e-5)
    assert scores.pixel_accuracy == pytest.approx(25.531251, abs=1e-5)

    counts = confusion_matrix(np.where(pred == 3, 0, pred), true, 4, 4, ignore_index=-1)
    scores = scores_from_confusion(counts, hungarian_assignment(counts))
    assert np.isnan(scores.iou[3])
    assert scores.mean_iou == pytest.approx(20.644967, abs=1e-5)
    assert scores.pixel_accuracy == pytest.approx(37.5, abs=1e-5)


def test_matrix_has_predictions_as_rows() -> None:
    counts = confusion_matrix(np.array([2, 2, 0]), np.array([1, 1, 255]), 3, 2)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[0, 0], [0, 0], [0, 2]]


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int16, np.int64])
def test_matrix_accepts_numpy_and_torch_integers(dtype: type) -> None:
    rng = np.random.default_rng(0)
    pred, target = rng.integers(0, 5, (2, 4, 6)).astype(dtype), rng.integers(0, 3, (2, 4, 6)).astype(dtype)
    expected = np.zeros((5, 3), np.int64)
    np.add.at(expected, (pred.ravel().astype(int), target.ravel().astype(int)), 1)
    np.testing.assert_array_equal(confusion_matrix(pred, target, 5, 3), expected)
    if dtype is not np.uint16:
        as_tensors = torch.from_numpy(pred), torch.from_numpy(target)
        np.testing.assert_array_equal(confusion_matrix(*as_tensors, 5, 3), expected)


@pytest.mark.parametrize(
    ('pred', 'target', 'message'),
    [
        (np.zeros((4, 5), int), np.zeros((5, 4), int), r'\(4, 5\).*\(5, 4\)'),
        (np.array([0, 1]), np.array([0, 7]), r'label value 7 .*0\.\.2 or 255'),
        (np.array([0, 1]), np.array([0, -1]), r'label value -1 .*0\.\.2 or 255'),
        (np.array([0, 4]), np.array([0, 1]), r'cluster value 4 .*0\.\.3; .*num_clusters'),
        (np.array([0.0, 1.0]), np.array([0, 1]), 'float64.*argmax'),
    ],
)
def test_matrix_refuses_bad_values(pred: np.ndarray, target: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(pred, target, 4, 3)


def test_prediction_under_ignored_pixels_does_not_matter() -> None:
    assert confusion_matrix(np.array([99, 1]), np.array([255, 1]), 2, 2).tolist() == [[0, 0], [0, 1]]


def test_fewer_clusters_than_classes() -> None:
    counts = np.array([[0, 5, 1], [4, 0, 0]])
    scores = scores_from_confusion(counts, hungarian_assignment(counts))
    assert scores.assignment.tolist() == [1, 0]
    np.testing.assert_allclose(scores.iou, [100, 100 * 5 / 6, 0])
    assert scores.pixel_accuracy == pytest.approx(90)


def test_more_clusters_than_classes_counts_the_rest_as_misses() -> None:
    counts = np.array([[6, 0], [0, 3], [2, 1]])
    scores = scores_from_confusion(counts, hungarian_assignment(counts))
    assert scores.assignment.tolist() == [0, 1, UNMATCHED]
    np.testing.assert_allclose(scores.iou, [75, 75])
    assert scores.pixel_accuracy == pytest.approx(75)


def test_empty_matrix_gives_nan_without_a_warning() -> None:
    with np.errstate(all='raise'):
        scores = scores_from_confusion(np.zeros((3, 3), int))
    assert np.isnan(scores.mean_iou) and np.isnan(scores.pixel_accuracy)


@pytest.mark.parametrize('assignment', [[0, 1], [0, 1, 3], [0, 1, -2], [0, 1, 2, 0], [[0, 1, 2]]])
def test_bad_assignment(assignment: list[int]) -> None:
    with pytest.raises(ValueError, match='does not fit a 3 x 3'):
        scores_from_confusion(np.eye(3, dtype=int), assignment)


@pytest.mark.parametrize('counts', [np.zeros((0, 3), int), np.zeros(3, int), np.eye(3), -np.eye(3, dtype=int)])
def test_bad_counts(counts: np.ndarray) -> None:
    with pytest.raises(ValueError, match='non-negative integers'):
        scores_from_confusion(counts)


@st.composite
def count_tables(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    return draw(random_arrays(np.int64, shape, elements=st.integers(0, 9) | st.integers(0, 10**9)))


@given(count_tables())
@settings(max_examples=60, deadline=None)
def test_hungarian_is_the_best_of_all_matchings(counts: np.ndarray) -> None:
    """Against every one-to-one map, with more or fewer clusters than classes, too."""
    num_predicted, num_classes = counts.shape
    if num_predicted >= num_classes:
        totals = (
            sum(counts[row, column] for column, row in enumerate(rows))
            for rows in itertools.permutations(range(num_predicted), num_classes)
        )
    else:
        totals = (
            sum(counts[row, column] for row, column in enumerate(columns))
            for columns in itertools.permutations(range(num_classes), num_predicted)
        )
    assignment = hungarian_assignment(counts)
    matched = np.flatnonzero(assignment != UNMATCHED)
    assert len(matched) == len(set(assignment[matched])) == min(counts.shape)
    assert counts[matched, assignment[matched]].sum() == max(totals)


@given(count_tables())
@settings(max_examples=60, deadline=None)
def test_majority_finds_at_least_as_many_pixels(counts: np.ndarray) -> None:
    majority = scores_from_confusion(counts, majority_assignment(counts))
    hungarian = scores_from_confusion(counts, hungarian_assignment(counts))
    if counts.any():
        assert majority.pixel_accuracy == pytest.approx(100 * counts.max(axis=1).sum() / counts.sum())
        assert majority.pixel_accuracy >= hungarian.pixel_accuracy - 1e-9
    np.testing.assert_array_equal(majority.assignment == UNMATCHED, ~counts.any(axis=1))


def test_several_clusters_of_one_class() -> None:
    counts = np.array([[6, 1], [2, 0], [1, 5], [0, 0]])
    assignment = match_clusters(counts, 'majority')
    assert assignment.tolist() == [0, 0, 1, UNMATCHED]
    scores = scores_from_confusion(counts, assignment)
    np.testing.assert_allclose(scores.iou, [100 * 8 / 10, 100 * 5 / 7])
    np.testing.assert_allclose(scores.accuracy, [100 * 8 / 9, 100 * 5 / 6])
    assert scores.pixel_accuracy == pytest.approx(100 * 13 / 15)


def test_absent_class_left_out() -> None:
    counts = np.array([[4, 0, 0], [0, 3, 0], [1, 0, 0]])
    assert scores_from_confusion(counts).mean_iou == pytest.approx((80 + 100 + 0) / 3)
    left_out = scores_from_confusion(counts, absent='leave_out')
    assert np.isnan(left_out.iou[2]) and left_out.mean_iou == pytest.approx(90)
    assert left_out.pixel_accuracy == pytest.approx(87.5)
    with pytest.raises(ValueError, match="absent must be one of .*got 'zero'"):
        scores_from_confusion(counts, absent='zero')


def test_unknown_matching() -> None:
    with pytest.raises(ValueError, match="one of .*'majority'.*got 'greedy'"):
        match_clusters(np.eye(2, dtype=int), 'greedy')
