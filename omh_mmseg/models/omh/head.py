"""OMH: parallel clusterings of the code, related by optimal transport (OMH.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from omh_mmseg.models.losses.cluster_loss import ClusterLoss
from omh_mmseg.models.losses.hierarchy_matching_loss import HierarchyMatchingLoss
from omh_mmseg.models.omh.centre_momentum import follow_positions
from omh_mmseg.models.omh.centre_start import KMeansStart
from omh_mmseg.models.omh.gradient_shares import GradientShares
from omh_mmseg.models.omh.hierarchy_figures import hierarchy_figures
from omh_mmseg.models.omh.host_copy import HostCopy, send
from omh_mmseg.models.omh.level_prior import level_priors
from omh_mmseg.models.omh.level_sizes import checked_levels, expand_levels
from omh_mmseg.models.utils.similarity import code_similarity
from omh_mmseg.models.utils.step_counter import StepCounter
from omh_mmseg.registry import MODELS
from omh_mmseg.transport import (
    PLAN_GRADIENTS,
    Hierarchy,
    TransportPlan,
    hierarchy_plans,
)
from omh_mmseg.utils.precision import wide_dtype, widened

MODES = ('decoupled', 'literal')
WEIGHTINGS = ('fixed', 'host_gradient')
CENTRE_STARTS = ('random', 'kmeans')
CENTRE_UPDATES = ('gradient', 'momentum')
MARGINALS = ('uniform', 'activation')
ASSIGNMENTS = ('hard', 'soft')
MARGINAL_FLOOR = 1e-3


@MODELS.register_module()
class OMHHead(BaseModule):
    r"""N clusterings of the code at growing granularity, pulled into agreement along transport plans.

    Level l has centres C^l (K_l x D), similarity :math:`s^l_{pk} = \langle n(z_p), n(C^l_k) \rangle` and activation
    :math:`a^l_p = softmax_k(s^l_{pk} / \tau)`. Neighbouring levels are related by an entropic transport plan between
    their centres, and the activations of one are transported along it to be compared with those of the other.

    ``mode='decoupled'`` (default, a choice of this library, OMH.md "Training the centres"): the centres learn from
    the **detached** code at ``centre_weight``; ``cluster_weight`` and ``match_weight`` scale only what reaches the
    features, against detached centres, and start at ``start_iteration`` after the centres have settled.
    ``mode='literal'``: one undetached loss from iteration 0 on moves centres and features together with
    ``cluster_weight`` and ``match_weight``; ``centre_weight`` and the ramp do not apply. It tends to collapse.

    Args:
        in_channels: D of the code.
        num_classes: K_1.
        num_levels: N.
        expansion: rho, at least 1; ``K_{l+1} = round(rho K_l)``.
        level_sizes: Explicit K_1..K_N, coarsest first; overrides ``num_levels`` and ``expansion``.
        temperature: tau above 0 (a choice of this library).
        entropy_weight: lambda above 0 of the plans.
        mode: See above.
        centre_weight: Weight of the centres' own loss.
        cluster_weight: w_clu.
        match_weight: w_match.
        weighting: ``'fixed'``, or ``'host_gradient'`` (a choice of this library): ``cluster_weight`` and
            ``match_weight`` are then the norms of the losses' gradients on the code, relative to that of the host's;
            what reaches the centres is as with ``'fixed'``.
        centre_start: ``'random'``, or ``'kmeans'`` (a choice of this library): at ``start_iteration`` the centres of
            each level move to k-means of their own on codes of the last steps, see `KMeansStart`.
        centre_update: ``'gradient'``, or ``'momentum'`` (a choice of this library, decoupled mode alone): the centres
            follow the positions that they win, see `follow_positions`, and ``centre_weight`` does not apply.
        centre_momentum: Of that, in [0, 1).
        prior_weight: From ``start_iteration`` on (literal mode: from the first step) positions choose the centre that
            learns from them by their cosine and, so weighted, by what their activations at the next coarser level let
            expect, see `level_priors` (a choice of this library): 1 is maximum a posteriori. With 0 (default) each
            level chooses by itself.
        start_iteration: Training step at which losses begin to reach the features.
        ramp_iterations: Steps over which their weight then grows linearly to its full value.
        assignment: ``'hard'`` (default, a choice of this library) or ``'soft'`` cluster loss.
        direction: See `HierarchyMatchingLoss`.
        conditioning: See `HierarchyMatchingLoss`.
        target: See `HierarchyMatchingLoss`.
        plan_gradient: ``'detach'`` or ``'solver'``: whether the matching loss also moves the centres through the plan.
        marginal: ``'uniform'``, or ``'activation'`` for the mean activations of the batch (a choice of this library).
        tolerance: Of the solver, see `sinkhorn_plan`.
        max_iterations: Of the solver.
        warm_start: Start each solve from the previous step's potentials, which are kept in the state dict.
        init_cfg: See mmengine.

    Raises:
        ValueError: On values outside the ranges above.

    Source: OMH.md sections 2 and 4, after arXiv 2403.06546.
    """

    iteration: Tensor

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_levels: int = 3,
        expansion: float = 2.0,
        level_sizes: Sequence[int] | None = None,
        temperature: float = 0.1,
        entropy_weight: float = 0.05,
        mode: str = 'decoupled',
        centre_weight: float = 1.0,
        cluster_weight: float = 0.0,
        match_weight: float = 0.03,
        weighting: str = 'fixed',
        centre_start: str = 'random',
        centre_update: str = 'gradient',
        centre_momentum: float = 0.97,
        prior_weight: float = 0.0,
        start_iteration: int = 200,
        ramp_iterations: int = 0,
        assignment: str = 'hard',
        direction: str = 'fine_to_coarse',
        conditioning: str = 'row',
        target: str = 'none',
        plan_gradient: str = 'detach',
        marginal: str = 'uniform',
        tolerance: float = 1e-6,
        max_iterations: int = 1000,
        warm_start: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value, accepted in (
            ('mode', mode, MODES),
            ('weighting', weighting, WEIGHTINGS),
            ('centre_start', centre_start, CENTRE_STARTS),
            ('centre_update', centre_update, CENTRE_UPDATES),
            ('marginal', marginal, MARGINALS),
            ('assignment', assignment, ASSIGNMENTS),
            ('plan_gradient', plan_gradient, PLAN_GRADIENTS),
        ):
            if value not in accepted:
                raise ValueError(f'{name} must be one of {accepted}; got {value!r}.')
        for name, count in (('in_channels', in_channels), ('max_iterations', max_iterations)):
            if count < 1:
                raise ValueError(f'{name} must be at least 1; got {count}.')
        for name, number in (
            ('temperature', temperature), ('entropy_weight', entropy_weight), ('tolerance', tolerance)
        ):
            if not number > 0:
                raise ValueError(f'{name} must be above 0; got {number}.')
        for name, number in (
            ('centre_weight', centre_weight),
            ('cluster_weight', cluster_weight),
            ('match_weight', match_weight),
            ('prior_weight', prior_weight),
            ('start_iteration', start_iteration),
            ('ramp_iterations', ramp_iterations),
        ):
            if not number >= 0:
                raise ValueError(f'{name} must be at least 0; got {number}.')
        if not 0 <= centre_momentum < 1:
            raise ValueError(f'centre_momentum must be in [0, 1); got {centre_momentum}.')
        if centre_update == 'momentum' and mode == 'literal':
            raise ValueError("mode='literal' trains the centres; set centre_update='gradient' or mode='decoupled'.")
        if level_sizes is None:
            sizes = expand_levels(num_classes, num_levels, expansion)
        else:
            sizes = checked_levels(level_sizes, num_classes)
        self.level_sizes = sizes
        self.temperature = temperature
        self.entropy_weight = entropy_weight
        self.mode = mode
        self.centre_weight = centre_weight
        self.cluster_weight = cluster_weight
        self.match_weight = match_weight
        self.weighting = weighting
        self.centre_update = centre_update
        self.centre_momentum = centre_momentum
        self.prior_weight = prior_weight
        self.start_iteration = start_iteration
        self.ramp_iterations = ramp_iterations
        self.plan_gradient = plan_gradient
        self.marginal = marginal
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.warm_start = warm_start
        self.cluster_loss = ClusterLoss(None if assignment == 'hard' else 1 / temperature)
        self.matching_loss = HierarchyMatchingLoss(direction, conditioning, target)
        # With the same seed a host thus starts and trains from the same random numbers with and without OMH.
        with torch.random.fork_rng(devices=[]):
            self.centres = nn.ParameterList([torch.randn(size, in_channels) for size in sizes])
        self.centres.requires_grad_(centre_update == 'gradient')
        self.centre_start = KMeansStart(in_channels, start_iteration) if centre_start == 'kmeans' else None
        self.register_buffer('iteration', torch.zeros((), dtype=torch.long))
        self._step_counter = StepCounter()
        self._host_copy = HostCopy()
        # Zero potentials are the solver's own cold start, so a fresh head needs no flag.
        for level, (rows, columns) in enumerate(zip(sizes, sizes[1:])):
            self.register_buffer(f'row_potential_{level}', torch.zeros(rows, dtype=torch.float64))
            self.register_buffer(f'column_potential_{level}', torch.zeros(columns, dtype=torch.float64))
        if marginal == 'activation':
            for level, size in enumerate(sizes):
                self.register_buffer(f'marginal_{level}', torch.full((size,), 1 / size))

    def forward(self, code: Tensor) -> list[Tensor]:
        """Similarities of all levels, coarsest first: (B, K_l, h, w) of a code (B, D, h, w)."""
        return [code_similarity(code, centres) for centres in self.centres]

    def predict(self, code: Tensor, level: int = 1) -> Tensor:
        """Cluster of each position at a level (1 is the coarsest, OMH.md 3): int64 (B, h, w).

        Raises:
            ValueError: If the level does not exist.
        """
        if not 1 <= level <= len(self.centres):
            raise ValueError(f'level must be 1 to {len(self.centres)}; got {level}.')
        return code_similarity(code, self.centres[level - 1]).argmax(1)

    def begin_step(self) -> None:
        """Prepare a training step, before anything else is asked of the device; `loss` does without, but waits for it.

        Plans are solved on the host. What they are solved from is on its way there while the backbone computes.
        """
        if self._solves_on_host and self.marginal == 'uniform':
            self._host_copy.start(self._solved_from())

    @property
    def needs_shares(self) -> bool:
        """Whether the next `loss` wants ``shares``."""
        reaches_features = self.feature_ramp() > 0 and (self.cluster_weight > 0 or self.match_weight > 0)
        return self.weighting == 'host_gradient' and reaches_features

    def loss(self, code: Tensor, shares: GradientShares | None = None) -> dict[str, Tensor]:
        """Losses of one training step, and the figures to watch.

        Args:
            code: (B, D, h, w), **not** detached.
            shares: Of the host's code, whose first rows are ``code``, for ``weighting='host_gradient'``.

        Returns:
            ``loss_omh_centre`` (decoupled mode, centres that learn by gradient), ``loss_omh_cluster`` and
            ``loss_omh_match`` (where their weight is above 0), weights applied; and, without gradient, ``omh_*``
            figures of OMH.md 4. A matching loss that is not finite is told to be so by its figure ``omh_match_*``,
            named after the level pair.

        Raises:
            FloatingPointError: If a plan is not finite, naming the level pair, or the codes that k-means starts from.
            ValueError: If ``shares`` are wanted and absent.
        """
        if self.needs_shares and shares is None:
            raise ValueError(
                "weighting='host_gradient' scales gradients where the host's code ends: give shares, or set "
                "weighting='fixed'."
            )
        ramp = self.feature_ramp()
        cluster_weight, match_weight = ramp * self.cluster_weight, ramp * self.match_weight
        step = self._step_counter.read(self.iteration)
        self._step_counter.advance(self.iteration)
        with torch.autocast(code.device.type, enabled=False):
            positions = self._directions(code.detach())
            if self.centre_start is not None and self.training:
                self.centre_start.step(positions, list(self.centres), step)
            centres = self._centre_directions(positions.dtype)
            detached = self._similarities(positions, centres)
            solved = self._solve(detached)
            plans = self._on_device(solved)
            priors = self._priors(detached, plans) if ramp > 0 and self.prior_weight > 0 else None
            losses: dict[str, Tensor] = {}
            figures = hierarchy_figures(detached, solved)
            if self.mode == 'decoupled':
                if self.centre_update == 'gradient':
                    losses['loss_omh_centre'] = self.centre_weight * self._cluster_loss(detached, priors)
                centres = centres.detach()
            if cluster_weight > 0:
                reached = self._directions(self._reached(code, shares, cluster_weight))
                total = self._cluster_loss(self._similarities(reached, centres), priors)
                losses['loss_omh_cluster'] = cluster_weight * total
            if match_weight > 0 and plans:
                reached = self._directions(self._reached(code, shares, match_weight))
                distances = self._match(self._similarities(reached, centres), plans)
                losses['loss_omh_match'] = match_weight * torch.stack(distances).sum()
                for level, distance in enumerate(distances, start=1):
                    figures[f'omh_match_{level}{level + 1}'] = distance.detach()
            if self.centre_update == 'momentum' and self.training:
                scores = detached if priors is None else [cosine + prior for cosine, prior in zip(detached, priors)]
                follow_positions(list(self.centres), positions, scores, self.centre_momentum)
        return {**losses, **figures}

    @torch.no_grad()
    def follow_coarsest(self, centres: Tensor) -> None:
        """Make level 1 the given centres (K_1, D); it takes no gradient from then on."""
        self.centres[0].requires_grad_(False).copy_(centres)

    def feature_ramp(self) -> float:
        """Share of ``cluster_weight`` and ``match_weight`` in force at this iteration, in [0, 1]."""
        elapsed = self._step_counter.read(self.iteration) - self.start_iteration
        if self.mode == 'literal':
            return 1.0
        if elapsed < 0:
            return 0.0
        return min(1.0, (elapsed + 1) / (self.ramp_iterations + 1))

    def _reached(self, code: Tensor, shares: GradientShares | None, weight: float) -> Tensor:
        """The code as a loss sees it that is to reach the features."""
        if self.weighting == 'fixed' or shares is None:
            return code
        return shares.branch(weight, len(code))

    def plans(self, similarities: Sequence[Tensor] | None = None) -> list[TransportPlan]:
        """Plans between the present centres of all neighbouring levels.

        Args:
            similarities: Per level (P, K_l); with ``marginal='activation'`` they renew the marginals, which are kept
                for calls without them.
        """
        return self._on_device(self._solve(similarities))

    @torch.no_grad()
    def hierarchy(self) -> Hierarchy:
        """The tree that the present centres span, on the CPU."""
        return Hierarchy.from_plans(self.level_sizes, [plan.plan for plan in self.plans()])

    def _directions(self, code: Tensor) -> Tensor:
        """Unit vectors of the positions, (P, D)."""
        positions = code.permute(0, 2, 3, 1).flatten(0, 2)
        return F.normalize(widened(positions), dim=1)

    def _centre_directions(self, dtype: torch.dtype) -> Tensor:
        """Unit vectors of the centres of all levels, (K_1 + ... + K_N, D)."""
        return F.normalize(torch.cat(list(self.centres)).to(dtype), dim=1)

    def _similarities(self, positions: Tensor, centres: Tensor) -> list[Tensor]:
        """Cosines (P, K_l) of each level."""
        return list((positions @ centres.t()).split(self.level_sizes, dim=1))

    def _activations(self, similarity: Tensor) -> Tensor:
        return torch.softmax(similarity / self.temperature, dim=1)

    def _priors(self, similarities: Sequence[Tensor], plans: Sequence[TransportPlan]) -> list[Tensor]:
        """What positions choose their clusters by beside the cosines."""
        # The finest level, which is the largest, expects nothing of another.
        parents = similarities[: len(plans) or 1]
        activations = [self._activations(similarity.detach()) for similarity in parents]
        return level_priors(activations, [plan.plan for plan in plans], self.prior_weight * self.temperature)

    def _cluster_loss(self, similarities: Sequence[Tensor], priors: Sequence[Tensor] | None) -> Tensor:
        """Sum over levels."""
        return torch.stack(list(map(self.cluster_loss, similarities, priors or repeat(None)))).sum()

    def _match(self, similarities: Sequence[Tensor], plans: Sequence[TransportPlan]) -> list[Tensor]:
        """Matching loss of each level pair."""
        activations = [self._activations(similarity) for similarity in similarities]
        return [
            self.matching_loss(activations[level], activations[level + 1], plan.plan)
            for level, plan in enumerate(plans)
        ]

    @property
    def _solves_on_host(self) -> bool:
        """The solver asks for the violation again and again, and its problems are too small for anything but a CPU."""
        return self.plan_gradient == 'detach'

    def _solved_from(self) -> list[Tensor]:
        """Centres, then potentials, then marginals, as far as there are any."""
        tensors = list(self.centres)
        if self.warm_start:
            tensors += [potential for level in range(len(self.centres) - 1) for potential in self._potentials(level)]
        if self.marginal == 'activation':
            tensors += [getattr(self, f'marginal_{level}') for level in range(len(self.centres))]
        return tensors

    def _solve(self, similarities: Sequence[Tensor] | None) -> list[TransportPlan]:
        """Plans where they are solved; with ``similarities`` (P, K_l), after renewing the marginals."""
        if self.marginal == 'activation':
            for level, similarity in enumerate(similarities or ()):
                share = self._activations(similarity.detach()).mean(0)
                # An empty cluster would make the transport problem degenerate.
                getattr(self, f'marginal_{level}').copy_(share.clamp_min(MARGINAL_FLOOR / len(share)))
        tensors = self._solved_from()
        if self._solves_on_host:
            tensors = self._host_copy.finish(tensors)
        levels = len(self.centres)
        centres, rest = tensors[:levels], tensors[levels:]
        pairs = 2 * (levels - 1) if self.warm_start else 0
        potentials, marginals = rest[:pairs], rest[pairs:]
        return hierarchy_plans(
            centres,
            self.entropy_weight,
            marginals or None,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            warm_starts=list(zip(potentials[::2], potentials[1::2])) if self.warm_start else None,
            gradient=self.plan_gradient,
        )

    def _on_device(self, solved: list[TransportPlan]) -> list[TransportPlan]:
        """The plans where the centres are; in training their potentials are kept for the next ones."""
        if not solved:
            return solved
        if self._solves_on_host:
            tensors = [tensor for plan in solved for tensor in (plan.plan, *plan.potentials)]
            sent = send(tensors, self.centres[0].device)
            dtype = wide_dtype(self.centres[0])
            solved = [
                replace(plan, plan=matrix.to(dtype), potentials=(rows, columns))
                for plan, matrix, rows, columns in zip(solved, sent[::3], sent[1::3], sent[2::3])
            ]
        if self.warm_start and self.training:
            for level, plan in enumerate(solved):
                for buffer, potential in zip(self._potentials(level), plan.potentials):
                    buffer.copy_(potential)
        return solved

    def _potentials(self, level: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f'row_potential_{level}'), getattr(self, f'column_potential_{level}')
