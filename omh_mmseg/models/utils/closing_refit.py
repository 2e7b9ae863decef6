"""A clustering of unit codes brought to its fixed point, with a prior of how large its clusters are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor

from omh_mmseg.evaluation.label_free import effective_clusters
from omh_mmseg.utils.precision import widened

DELTAS = (0.4, 0.35, 0.3, 0.25, 0.2, 0.175, 0.15, 0.125, 0.1, 0.075, 0.05, 0.025, 0.0)
"""Weights of the size prior that are tried, the largest first."""
KEPT = 0.9
"""The least number of effective clusters that a size prior may leave, as a share of that without one."""
ITERATIONS = 25
LEAST_SHARE = 1e-5
"""A cluster with no larger share of the positions stays where it is, and counts as unused."""
MAX_VALUES = 1 << 19
"""Numbers of codes or similarities that are held at once: in its caches a processor takes half the time."""


@dataclass(frozen=True)
class Refit:
    """A clustering at its fixed point.

    Attributes:
        centres: Unit centres (K, D).
        shares: pi (K), float64: how many of the positions belong to each cluster.
        delta: Weight of the size prior.
    """

    centres: Tensor
    shares: Tensor
    delta: float

    @property
    def bias(self) -> Tensor:
        """What the size prior adds to the cosines of each cluster, (K)."""
        return size_prior(self.shares, self.delta).to(self.centres)

    @property
    def effective(self) -> float:
        """The number of effective clusters, exp(entropy of the shares)."""
        return effective_clusters(self.shares.cpu().numpy())

    @property
    def unused(self) -> list[int]:
        """Numbers of the clusters that (almost) no position belongs to."""
        return (self.shares <= LEAST_SHARE).nonzero().flatten().tolist()


def refit(codes: Tensor, centres: Tensor, delta: float | None = None) -> Refit:
    """Bring centres to a fixed point, with the largest size prior that keeps the clusters alive.

    Tried from the largest on, the first of `DELTAS` counts whose number of effective clusters is at least `KEPT` of
    that without a prior. No label takes part.

    Args:
        codes: (P, D), of unit length: positions of this process; all processes together are what is fitted.
        centres: (K, D), as they were trained.
        delta: Fixed weight of the size prior, in place of the rule.

    Raises:
        FloatingPointError: Codes or centres are not finite.
        ValueError: There are no codes.

    Source: docs/methods/evaluation.md 6.7.
    """
    codes = widened(codes)
    _check(codes, centres)
    if delta is not None:
        return fit(codes, centres, delta)
    plain = fit(codes, centres, 0.0)
    for candidate in DELTAS:
        found = fit(codes, centres, candidate) if candidate else plain
        if found.effective >= KEPT * plain.effective:
            return found
    return plain


def fit(codes: Tensor, centres: Tensor, delta: float) -> Refit:
    """Alternate assignments and centres `ITERATIONS` times, or until nothing changes; see `refit`."""
    centres = F.normalize(centres.detach().to(codes), dim=1)
    clusters = len(centres)
    shares = torch.full((clusters,), 1 / clusters, dtype=torch.float64, device=codes.device)
    for _ in range(ITERATIONS):
        counts, sums = _sums(codes, centres, size_prior(shares, delta).to(codes))
        new_shares = counts / counts.sum()
        means = F.normalize(sums, dim=1)
        moved = (new_shares > LEAST_SHARE) & (sums.norm(dim=1) > 0)
        new_centres = torch.where(moved[:, None], means.to(codes), centres)
        done = torch.equal(new_shares, shares) and torch.equal(new_centres, centres)
        centres, shares = new_centres, new_shares
        if done:
            break
    return Refit(centres, shares, delta)


def shares_with(codes: Tensor, centres: Tensor, bias: Tensor | None = None, lengths: bool = False) -> Refit:
    """Centres as they are, with the shares of their clusters; see `refit`. ``delta`` is 0, whatever the bias.

    With ``lengths`` the centres keep theirs, and a longer one wins more.
    """
    codes = widened(codes)
    centres = centres.detach().to(codes)
    centres = centres if lengths else F.normalize(centres, dim=1)
    counts, _ = _sums(codes, centres, codes.new_zeros(len(centres)) if bias is None else bias.to(codes))
    return Refit(centres, counts / counts.sum(), 0.0)


def size_prior(shares: Tensor, delta: float) -> Tensor:
    """``delta log(pi_k / 2 + 1 / (2 K))`` of shares pi (K): half of the mass is dealt out evenly, none is lost."""
    return delta * torch.log(shares / 2 + 1 / (2 * len(shares)))


def assignments(codes: Tensor, centres: Tensor, bias: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of the codes, and the cluster of each: the largest cosine with bias."""
    for part in codes.split(max(1, MAX_VALUES // max(centres.shape))):
        yield part, (part @ centres.t() + bias).argmax(1)


def _sums(codes: Tensor, centres: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Sizes (K) of the clusters and sums (K, D) of their codes, over all processes.

    In float64 the order of the positions, and who holds them, is lost in the rounding to float32.
    """
    counts = torch.zeros(len(centres), dtype=torch.float64, device=codes.device)
    sums = torch.zeros(centres.shape, dtype=torch.float64, device=codes.device)
    for part, nearest in assignments(codes, centres, bias):
        counts += torch.bincount(nearest, minlength=len(centres))
        sums.index_add_(0, nearest, part.double())
    dist.all_reduce(counts)
    dist.all_reduce(sums)
    return counts, sums


def _check(codes: Tensor, centres: Tensor) -> None:
    """Refuse, in all processes alike, what no fit comes from."""
    state = torch.tensor([len(codes), int(not torch.isfinite(codes).all())], device=codes.device)
    dist.all_reduce(state)
    if not state[0]:
        raise ValueError('there are no codes to refit the clusters to; the train set has no images.')
    if state[1] or not bool(torch.isfinite(centres).all()):
        raise FloatingPointError(
            'codes or centres are not finite at the end of the training, so that clusters cannot be refitted. Look for '
            'the first loss that is not finite in the log.'
        )
