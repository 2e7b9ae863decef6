"""NMI and ARI against their definitions over pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omh_mmseg.evaluation.scores import adjusted_rand_index, confusion_matrix, normalised_mutual_information


def definition_of_ari(pred: np.ndarray, true: np.ndarray) -> float:
    """From the pairs of pixels themselves."""
    pairs = list(itertools.combinations(range(len(pred)), 2))
    same_pred = np.array([pred[i] == pred[j] for i, j in pairs])
    same_true = np.array([true[i] == true[j] for i, j in pairs])
    index, expected = (same_pred & same_true).sum(), same_pred.sum() * same_true.sum() / len(pairs)
    largest = (same_pred.sum() + same_true.sum()) / 2
    return 1.0 if largest == expected else (index - expected) / (largest - expected)


def definition_of_nmi(pred: np.ndarray, true: np.ndarray) -> float:
    """From the shares of pixels, one pixel at a time."""
    def share(chosen: np.ndarray) -> float:
        return float(chosen.mean())

    information = np.mean([
        np.log(share((pred == p) & (true == t)) / share(pred == p) / share(true == t)) for p, t in zip(pred, true)
    ])
    entropies = -np.mean([np.log(share(pred == p)) + np.log(share(true == t)) for p, t in zip(pred, true)])
    return 1.0 if entropies == 0 else 2 * information / entropies


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=2, max_size=14))
@settings(max_examples=60, deadline=None)
def test_definitions(pixels: list[tuple[int, int]]) -> None:
    pred, true = np.array(pixels).T
    counts = confusion_matrix(pred, true, 4, 3)
    assert adjusted_rand_index(counts) == pytest.approx(definition_of_ari(pred, true), abs=1e-12)
    assert normalised_mutual_information(counts) == pytest.approx(definition_of_nmi(pred, true), abs=1e-12)


def test_permutation_is_perfect_and_independence_is_worthless() -> None:
    permuted = np.array([[0, 7, 0], [0, 0, 9], [5, 0, 0]])
    assert adjusted_rand_index(permuted) == pytest.approx(1) and normalised_mutual_information(permuted) <= 1
    assert normalised_mutual_information(permuted) == pytest.approx(1)
    independent = np.outer([100, 300], [200, 500])
    assert normalised_mutual_information(independent) == pytest.approx(0, abs=1e-12)
    assert adjusted_rand_index(independent) == pytest.approx(0, abs=1e-4)


def test_counts_of_a_large_data_set() -> None:
    """Products of pairs far beyond 64 bits: scaling all counts leaves both scores in place."""
    counts = np.random.default_rng(0).integers(0, 50, (27, 27))
    many, more = counts * 10**4, counts * 10**12
    assert normalised_mutual_information(more) == pytest.approx(normalised_mutual_information(counts), rel=1e-9)
    assert adjusted_rand_index(more) == pytest.approx(adjusted_rand_index(many), rel=1e-3)


def test_nothing_counted() -> None:
    empty = np.zeros((3, 2), int)
    assert np.isnan(adjusted_rand_index(empty)) and np.isnan(normalised_mutual_information(empty))
