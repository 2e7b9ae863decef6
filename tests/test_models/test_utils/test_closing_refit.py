"""The closing refit against a straight-line form of docs/methods/evaluation.md 6.7, and what it must not depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from two_ranks import on_two_ranks

from omh_mmseg.models.utils.closing_refit import DELTAS, ITERATIONS, fit, refit, shares_with, size_prior


def blobs(
    sizes: tuple[int, ...] = (400, 120, 60, 20), channels: int = 7, spread: float = 0.25, seed: int = 0
) -> Tensor:
    """Unit codes around as many directions as there are sizes."""
    generator = torch.Generator().manual_seed(seed)
    means = F.normalize(torch.randn(len(sizes), channels, generator=generator), dim=1)
    parts = [mean + spread * torch.randn(size, channels, generator=generator) for mean, size in zip(means, sizes)]
    return F.normalize(torch.cat(parts), dim=1)


def start(clusters: int = 4, channels: int = 7, seed: int = 1) -> Tensor:
    return 3 * torch.randn(clusters, channels, generator=torch.Generator().manual_seed(seed))


def straight(codes: np.ndarray, centres: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """``fit`` as the page has it, one position after the other."""
    count = len(centres)
    centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    shares = np.full(count, 1 / count)
    for _ in range(25):
        bias = delta * np.log(shares / 2 + 1 / (2 * count))
        nearest = np.array([int(np.argmax(centres @ code + bias)) for code in codes])
        shares = np.array([(nearest == k).mean() for k in range(count)])
        for k in np.flatnonzero(shares > 1e-5):
            total = codes[nearest == k].sum(0)
            centres[k] = total / np.linalg.norm(total)
    return centres, shares


def effective(shares: np.ndarray) -> float:
    return float(np.exp(-sum(share * np.log(share) for share in shares if share)))


@pytest.mark.parametrize('delta', [0.0, 0.1, 0.4])
def test_fit_is_the_page(delta: float) -> None:
    codes, centres = blobs().double(), start().double()
    found, expected = fit(codes, centres, delta), straight(codes.numpy(), centres.numpy().copy(), delta)
    np.testing.assert_allclose(found.centres.numpy(), expected[0], atol=1e-12)
    np.testing.assert_allclose(found.shares.numpy(), expected[1], atol=1e-12)
    np.testing.assert_allclose(found.bias.numpy(), delta * np.log(expected[1] / 2 + 1 / 8), atol=1e-12)
    assert found.effective == pytest.approx(effective(expected[1]))


def test_the_rule_takes_the_largest_prior_that_keeps_the_clusters() -> None:
    chosen = set()
    for seed in range(6):
        codes, centres = blobs(spread=0.6, seed=seed).double(), start(seed=seed).double()
        base = effective(straight(codes.numpy(), centres.numpy().copy(), 0.0)[1])
        first = next(
            delta
            for delta in DELTAS
            if effective(straight(codes.numpy(), centres.numpy().copy(), delta)[1]) >= 0.9 * base
        )
        assert refit(codes, centres).delta == first
        chosen.add(first)
    assert len(chosen) > 1, 'the inputs do not tell the weights apart'


def test_a_fixed_weight_is_taken() -> None:
    assert refit(blobs(), start(), 0.05).delta == 0.05


def test_it_is_a_fixed_point() -> None:
    codes = blobs()
    found = refit(codes, start(), 0.1)
    nearest = (codes @ found.centres.t() + found.bias).argmax(1)
    shares = torch.bincount(nearest, minlength=4) / len(codes)
    torch.testing.assert_close(shares.double(), found.shares)
    means = torch.stack([F.normalize(codes[nearest == k].sum(0), dim=0) for k in range(4)])
    torch.testing.assert_close(means, found.centres)


def test_the_order_of_the_positions_does_not_matter() -> None:
    codes = blobs(spread=0.5)
    one, other = refit(codes, start()), refit(codes[torch.randperm(len(codes))], start())
    assert one.delta == other.delta and torch.equal(one.shares, other.shares)
    torch.testing.assert_close(one.centres, other.centres, atol=1e-6, rtol=0)


def test_a_dead_cluster_stays_where_it_is() -> None:
    codes = blobs(spread=0.05)
    centres = torch.cat([codes[[0, 400, 520, 580]], -codes[:1]])
    found = refit(codes, centres)
    assert found.unused == [4] and found.shares[4] == 0
    torch.testing.assert_close(found.centres[4], F.normalize(centres[4], dim=0))
    assert torch.isfinite(found.bias).all() and found.bias[4] == found.bias.min()


def test_more_clusters_than_positions() -> None:
    found = refit(blobs((2, 1)), start(6))
    assert len(found.unused) >= 3 and torch.isfinite(found.centres).all()
    assert found.shares.sum() == pytest.approx(1)


def test_parts_of_the_positions_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = refit(blobs(), start())
    monkeypatch.setattr('omh_mmseg.models.utils.closing_refit.MAX_VALUES', 4 * 7)
    part = refit(blobs(), start())
    torch.testing.assert_close(part.centres, whole.centres)
    assert torch.equal(part.shares, whole.shares)


def test_half_precision_is_widened() -> None:
    assert refit(blobs().half(), start().half()).centres.dtype == torch.float32


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match='no codes'):
        refit(torch.empty(0, 7), start())
    codes = blobs()
    codes[3, 1] = float('nan')
    with pytest.raises(FloatingPointError, match='not finite'):
        refit(codes, start())
    with pytest.raises(FloatingPointError, match='not finite'):
        refit(blobs(), start() / 0)


def test_prior_of_sizes() -> None:
    shares = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    expected = 0.2 * torch.tensor([0.375, 0.375, 0.125, 0.125], dtype=torch.float64).log()
    torch.testing.assert_close(size_prior(shares, 0.2), expected)
    assert (size_prior(torch.full((4,), 0.25), 0.0) == 0).all()


def test_shares_of_centres_as_they_are() -> None:
    codes, centres = blobs(), start()
    found = shares_with(codes, centres, torch.tensor([0.0, 9.0, 0.0, 0.0]))
    assert found.shares.tolist() == [0, 1, 0, 0] and torch.equal(found.centres, F.normalize(centres, dim=1))


def test_two_ranks_find_what_one_finds(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    codes, centres = blobs(spread=0.5), start()

    def work(rank: int) -> tuple[float, list, list]:
        found = refit(codes[rank::2], centres)
        return found.delta, found.shares.tolist(), found.centres.tolist()

    alone = refit(codes, centres)
    for delta, shares, found in on_two_ranks(work, tmp_path):
        assert delta == alone.delta and shares == alone.shares.tolist()
        torch.testing.assert_close(torch.tensor(found), alone.centres, atol=1e-6, rtol=0)


def test_a_rank_without_images_takes_part(tmp_path: Path) -> None:
    torch.set_num_threads(1)

    def work(rank: int) -> list:
        return refit(blobs() if rank == 0 else torch.empty(0, 7), start()).shares.tolist()

    one, other = on_two_ranks(work, tmp_path)
    assert one == other == refit(blobs(), start()).shares.tolist()


def test_iterations_end_early_at_the_fixed_point(monkeypatch: pytest.MonkeyPatch) -> None:
    full = fit(blobs(), start(), 0.1)
    monkeypatch.setattr('omh_mmseg.models.utils.closing_refit.ITERATIONS', 10 * ITERATIONS)
    torch.testing.assert_close(fit(blobs(), start(), 0.1).centres, full.centres)
