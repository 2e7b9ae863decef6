"""Poisson bootstrap: sums, independence of order, and intervals that cover the truth."""

from __future__ import annotations

import numpy as np
import pytest

from omh_mmseg.evaluation.bootstrap import PoissonBootstrap, percentile_interval


def test_sums_are_weighted_counts() -> None:
    bootstrap = PoissonBootstrap(5, seed=3)
    rng = np.random.default_rng(0)
    images = {f'{i}.jpg': rng.integers(0, 4, (3, 2)) for i in range(6)}
    sums = bootstrap.zeros(3, 2)
    for name, counts in images.items():
        bootstrap.add(sums, counts, name)
    np.testing.assert_array_equal(sums[..., 0], sum(images.values()))
    weights = np.array([bootstrap.weights(name) for name in images])
    np.testing.assert_array_equal(sums, np.einsum('ib,ipk->pkb', weights, np.array(list(images.values()))))
    backwards = bootstrap.zeros(3, 2)
    for name in reversed(images):
        bootstrap.add(backwards, images[name], name)
    np.testing.assert_array_equal(backwards, sums)


def test_weights_follow_from_seed_and_name() -> None:
    weights = PoissonBootstrap(2000, seed=1).weights('a.jpg')
    assert weights.dtype == np.int64 and weights[0] == 1 and len(weights) == 2001
    assert weights[1:].mean() == pytest.approx(1, abs=0.1) and weights[1:].var() == pytest.approx(1, abs=0.15)
    np.testing.assert_array_equal(weights, PoissonBootstrap(2000, seed=1).weights('a.jpg'))
    for other in (PoissonBootstrap(2000, seed=1).weights('b.jpg'), PoissonBootstrap(2000, seed=2).weights('a.jpg')):
        assert abs(np.corrcoef(weights[1:], other[1:])[0, 1]) < 0.1


def test_interval_has_the_width_of_the_standard_error() -> None:
    """Mean of 400 images with values of variance 1: 1.96 standard errors are 0.098."""
    values = np.random.default_rng(0).normal(0, 1, 400)
    bootstrap = PoissonBootstrap(2000)
    weights = np.array([bootstrap.weights(str(number)) for number in range(400)])[:, 1:]
    low, high = percentile_interval(((weights * values[:, None]).sum(0) / weights.sum(0)).tolist())
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_nothing_to_sum_up() -> None:
    assert np.isnan(percentile_interval([float('nan')])).all()
    assert percentile_interval([1.0, float('nan'), 1.0]) == (1, 1)
    assert PoissonBootstrap().weights('a').tolist() == [1]
    with pytest.raises(ValueError, match='at least 0 resamples; got -1'):
        PoissonBootstrap(-1)
