"""How the centres of OMH's levels learn (docs/methods/omh.md 2.6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor, nn

from omh_mmseg.models.losses.cluster_loss import ClusterLoss
from omh_mmseg.models.omh.k_means_start import KMeansStart
from omh_mmseg.models.omh.level_prior import level_priors
from omh_mmseg.registry import MODELS
from omh_mmseg.transport import TransportPlan
from omh_mmseg.transport.checks import may_look_at
from omh_mmseg.utils.checks import POSITIVE, SIZE, STEPS, WEIGHT, ranges

STARTS = ('kmeans', 'random')


class CentreRule(nn.Module):
    """Base of the rules; a rule says where centres start, what moves them and what the features' losses see of them.

    Args:
        in_channels: D of the code; filled in by the head.
        begin: Step at which losses begin to reach the features; filled in by the head.
        start: ``'kmeans'`` (a choice of this library): at step ``begin`` the centres of each level move to k-means of
            their own on codes of the last steps, see `KMeansStart`; or ``'random'``.
        prior: From step ``begin`` on, positions choose the centre that learns from them by their cosine and, so
            weighted, by what their activations at the next coarser level let expect, see `level_priors` (a choice of
            this library): 1 is maximum a posteriori. With 0 each level chooses by itself.

    Raises:
        ValueError: On an unknown start, or a prior that is below 0 or infinite.
    """

    learns_by_gradient = True
    joint = False

    @ranges(in_channels=SIZE, begin=STEPS, prior=WEIGHT)
    def __init__(self, in_channels: int, begin: int, start: str = 'kmeans', prior: float = 0.0) -> None:
        super().__init__()
        if start not in STARTS:
            raise ValueError(f'start must be one of {STARTS}; got {start!r}.')
        self.start = KMeansStart(in_channels, begin) if start == 'kmeans' else None
        self.prior = prior

    def begin_run(self) -> None:
        """Forget the positions of an earlier run."""
        if self.start is not None:
            self.start.pool.zero_()

    def begin_at(self, step: int) -> None:
        """Let losses begin to reach the features at this step; the head says so before each step."""
        if self.start is not None:
            self.start.begin_at(step)

    def begin_step(self, positions: Tensor, centres: Sequence[Tensor], step: int) -> None:
        """Put the centres (K_l, D) at their start, if this is the step, given unit positions (P, D)."""
        if self.start is not None:
            self.start.step(positions, centres, step)

    def priors(
        self, similarities: Sequence[Tensor], plans: Sequence[TransportPlan], temperature: float
    ) -> list[Tensor] | None:
        """What positions choose their clusters by beside the cosines, (P, K_l) of each level; None for nothing."""
        if self.prior == 0:
            return None
        # The finest level, which is the largest, expects nothing of another.
        parents = similarities[: len(plans) or 1]
        activations = [torch.softmax(similarity.detach() / temperature, dim=1) for similarity in parents]
        return level_priors(activations, [plan.plan for plan in plans], self.prior * temperature)

    def loss(
        self, centres: Sequence[Tensor], positions: Tensor, winners: Sequence[Tensor], priors: Sequence[Tensor] | None
    ) -> dict[str, Tensor]:
        """The centres' own loss, if they have one.

        Args:
            centres: Unit centres (K_l, D) of each level.
            positions: Unit positions (P, D) of the detached code.
            winners: Of each level, the cluster (P,) with the largest cosine, the prior added.
            priors: See `priors`.
        """
        return {}

    def update(self, centres: Sequence[Tensor], positions: Tensor, winners: Sequence[Tensor]) -> None:
        """Move the centres (K_l, D) in place at the end of a training step, if the rule does."""


@MODELS.register_module()
class GradientCentres(CentreRule):
    """Centres learn by gradient from the **detached** code, through a cluster loss of their own (our choice).

    What reaches the features sees the centres detached, and never the other way round.

    Args:
        in_channels: See `CentreRule`.
        begin: See `CentreRule`.
        start: See `CentreRule`.
        prior: See `CentreRule`.
        alpha: None for hard assignments in the centres' loss, else the inverse temperature, see `ClusterLoss`.
        loss_weight: Weight of the centres' loss, above 0.
    """

    @ranges(alpha=POSITIVE, loss_weight=POSITIVE)
    def __init__(
        self,
        in_channels: int,
        begin: int,
        start: str = 'kmeans',
        prior: float = 0.0,
        alpha: float | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(in_channels, begin, start, prior)
        self.cluster_loss = ClusterLoss(alpha, loss_weight)

    def loss(
        self, centres: Sequence[Tensor], positions: Tensor, winners: Sequence[Tensor], priors: Sequence[Tensor] | None
    ) -> dict[str, Tensor]:
        """``loss_omh_centre``, the cluster loss summed over levels.

        With hard assignments it is linear in the centres: the positions that one wins enter by their sum alone.
        """
        if self.cluster_loss.alpha is not None:
            similarities = [positions @ level.t() for level in centres]
            return {'loss_omh_centre': self.cluster_loss.over_levels(similarities, priors)}
        won, _ = winner_sums(positions, winners, [len(level) for level in centres])
        total = (won * torch.cat(list(centres))).sum()
        return {'loss_omh_centre': -self.cluster_loss.loss_weight / len(positions) * total}


@MODELS.register_module()
class MomentumCentres(CentreRule):
    """Centres follow the positions that they win, see `follow_positions`, and take no gradient (our choice).

    Args:
        in_channels: See `CentreRule`.
        begin: See `CentreRule`.
        start: See `CentreRule`.
        prior: See `CentreRule`.
        momentum: In [0, 1).
    """

    learns_by_gradient = False

    @ranges(momentum='[0, 1)')
    def __init__(
        self, in_channels: int, begin: int, start: str = 'kmeans', prior: float = 0.0, momentum: float = 0.97
    ) -> None:
        super().__init__(in_channels, begin, start, prior)
        self.momentum = momentum

    def update(self, centres: Sequence[Tensor], positions: Tensor, winners: Sequence[Tensor]) -> None:
        """Let the centres follow the positions of this step."""
        follow_positions(centres, positions, winners, self.momentum)


@MODELS.register_module()
class JointCentres(CentreRule):
    """One undetached loss moves centres and features together: the method read literally. It tends to collapse.

    Centres then learn from the losses that reach the features alone, which with ``reach.begin = 0`` is from the first
    step on.

    Args:
        in_channels: See `CentreRule`.
        begin: See `CentreRule`.
        start: See `CentreRule`; the literal form starts at random.
        prior: See `CentreRule`; acts through the cluster loss.
    """

    joint = True

    def __init__(self, in_channels: int, begin: int, start: str = 'random', prior: float = 0.0) -> None:
        super().__init__(in_channels, begin, start, prior)


@torch.no_grad()
def winner_sums(positions: Tensor, winners: Sequence[Tensor], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Sum (K_1 + ... + K_N, D) and number (K_1 + ... + K_N, 1) of the positions that each centre wins.

    Args:
        positions: (P, D).
        winners: Of each level, the number of the centre that wins each position, (P,).
        sizes: K_1..K_N.
    """
    if not may_look_at(positions):
        # Sums of a device by index differ from run to run.
        empty = [positions.new_zeros(len(positions), size) for size in sizes]
        won = torch.cat([level.scatter_(1, one[:, None], 1.0) for level, one in zip(empty, winners)], dim=1)
        return won.t() @ positions, won.sum(0)[:, None]
    sums = [positions.new_zeros(size, positions.shape[1]) for size in sizes]
    for level, one in zip(sums, winners):
        level.index_add_(0, one, positions)
    counts = [one.bincount(minlength=size) for one, size in zip(winners, sizes)]
    return torch.cat(sums), torch.cat(counts)[:, None].to(positions)


@torch.no_grad()
def follow_positions(centres: Sequence[Tensor], positions: Tensor, winners: Sequence[Tensor], momentum: float) -> None:
    """Turn each centre in place towards the mean of the positions it wins; one that wins none stays.

    A centre of direction u whose positions have the mean m turns to ``momentum u + (1 - momentum) m`` and keeps its
    length: k-means by cosine, batch by batch. The positions are those of all processes.

    Args:
        centres: (K_l, D) of each level.
        positions: (P, D), of unit length.
        winners: Of each level, the number of the centre that wins each position, (P,).
        momentum: In [0, 1).
    """
    sizes = [len(level) for level in centres]
    sums = torch.cat(winner_sums(positions, winners, sizes), dim=1)
    dist.all_reduce(sums)
    for level, total in zip(centres, sums.split(sizes)):
        mean, count = total[:, :-1], total[:, -1:]
        length, direction = level.norm(dim=1, keepdim=True), F.normalize(level.to(mean.dtype), dim=1)
        moved = momentum * direction + (1 - momentum) * mean / count.clamp_min(1)
        level.copy_(torch.where(count > 0, F.normalize(moved, dim=1), direction) * length)
