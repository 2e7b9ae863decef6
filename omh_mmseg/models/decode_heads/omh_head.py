"""OMH: parallel clusterings of the code, related by optimal transport (OMH.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from omh_mmseg.models.decode_heads.probes import code_similarity
from omh_mmseg.models.losses.cluster_loss import ClusterLoss
from omh_mmseg.models.losses.hierarchy_matching_loss import HierarchyMatchingLoss
from omh_mmseg.models.step_counter import StepCounter
from omh_mmseg.registry import MODELS
from omh_mmseg.transport import (
    PLAN_GRADIENTS,
    Hierarchy,
    TransportPlan,
    cluster_usage,
    diagnose_plan,
    hierarchy_plans,
)

MODES = ('decoupled', 'literal')
MARGINALS = ('uniform', 'activation')
ASSIGNMENTS = ('hard', 'soft')
MARGINAL_FLOOR = 1e-3


def expand_levels(num_classes: int, num_levels: int, expansion: float) -> list[int]:
    """Cluster counts ``K_1 = num_classes``, ``K_{l+1} = round(expansion K_l)``, coarsest first.

    Raises:
        ValueError: If num_classes or num_levels is below 1 or the expansion below 1.
    """
    if num_classes < 1 or num_levels < 1 or not expansion >= 1:
        raise ValueError(
            'num_classes and num_levels must be at least 1 and expansion at least 1.0; '
            f'got {num_classes}, {num_levels} and {expansion}.'
        )
    sizes = [num_classes]
    while len(sizes) < num_levels:
        sizes.append(round(expansion * sizes[-1]))
    return sizes


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
        start_iteration: Training step at which losses begin to reach the features.
        ramp_iterations: Steps over which their weight then grows linearly to its full value.
        assignment: ``'hard'`` (default, a choice of this library) or ``'soft'`` cluster loss.
        direction: See `HierarchyMatchingLoss`.
        conditioning: See `HierarchyMatchingLoss`.
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
        start_iteration: int = 200,
        ramp_iterations: int = 0,
        assignment: str = 'hard',
        direction: str = 'fine_to_coarse',
        conditioning: str = 'row',
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
            ('start_iteration', start_iteration),
            ('ramp_iterations', ramp_iterations),
        ):
            if not number >= 0:
                raise ValueError(f'{name} must be at least 0; got {number}.')
        sizes = list(level_sizes) if level_sizes is not None else expand_levels(num_classes, num_levels, expansion)
        if not sizes or sizes[0] != num_classes or any(b < a for a, b in zip(sizes, sizes[1:])):
            raise ValueError(
                f'level_sizes must start with num_classes={num_classes} and never shrink (coarsest first); got {sizes}.'
            )
        self.level_sizes = sizes
        self.temperature = temperature
        self.entropy_weight = entropy_weight
        self.mode = mode
        self.centre_weight = centre_weight
        self.cluster_weight = cluster_weight
        self.match_weight = match_weight
        self.start_iteration = start_iteration
        self.ramp_iterations = ramp_iterations
        self.plan_gradient = plan_gradient
        self.marginal = marginal
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.warm_start = warm_start
        self.cluster_loss = ClusterLoss(None if assignment == 'hard' else 1 / temperature)
        self.matching_loss = HierarchyMatchingLoss(direction, conditioning)
        self.centres = nn.ParameterList([torch.randn(size, in_channels) for size in sizes])
        self.register_buffer('iteration', torch.zeros((), dtype=torch.long))
        self._step_counter = StepCounter()
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

    def loss(self, code: Tensor) -> dict[str, Tensor]:
        """Losses of one training step, and the figures to watch.

        Args:
            code: (B, D, h, w), **not** detached.

        Returns:
            ``loss_omh_centre`` (decoupled mode), ``loss_omh_cluster`` and ``loss_omh_match`` (where their weight is
            above 0), weights applied; and, without gradient, ``omh_*`` figures of OMH.md 4.

        Raises:
            FloatingPointError: If a plan or a loss is not finite, naming the level pair.
        """
        ramp = self.feature_ramp()
        self._step_counter.advance(self.iteration)
        detached = [_flatten(similarity) for similarity in self(code.detach())]
        plans = self.plans(detached)
        losses: dict[str, Tensor] = {}
        if self.mode == 'decoupled':
            centre_losses = [self.cluster_loss(similarity) for similarity in detached]
            losses['loss_omh_centre'] = self.centre_weight * torch.stack(centre_losses).sum()
        if ramp > 0 and (self.cluster_weight > 0 or self.match_weight > 0):
            similarities = [_flatten(code_similarity(code, self._feature_centres(c))) for c in self.centres]
            if self.cluster_weight > 0:
                feature_losses = [self.cluster_loss(similarity) for similarity in similarities]
                losses['loss_omh_cluster'] = ramp * self.cluster_weight * torch.stack(feature_losses).sum()
            if self.match_weight > 0 and plans:
                losses['loss_omh_match'] = ramp * self.match_weight * self._match(similarities, plans)
        return {**losses, **self._figures(detached, plans)}

    def feature_ramp(self) -> float:
        """Share of ``cluster_weight`` and ``match_weight`` in force at this iteration, in [0, 1]."""
        elapsed = self._step_counter.read(self.iteration) - self.start_iteration
        if self.mode == 'literal':
            return 1.0
        if elapsed < 0:
            return 0.0
        return min(1.0, (elapsed + 1) / (self.ramp_iterations + 1))

    def plans(self, similarities: Sequence[Tensor] | None = None) -> list[TransportPlan]:
        """Plans between the present centres of all neighbouring levels.

        Args:
            similarities: Per level (P, K_l); with ``marginal='activation'`` they renew the marginals, which are kept
                for calls without them.
        """
        marginals = None
        if self.marginal == 'activation':
            marginals = [getattr(self, f'marginal_{level}') for level in range(len(self.centres))]
            for marginal, similarity in zip(marginals, similarities or ()):
                share = self._activations(similarity.detach()).mean(0)
                # An empty cluster would make the transport problem degenerate.
                marginal.copy_(share.clamp_min(MARGINAL_FLOOR / len(share)))
        warm_starts = [self._potentials(level) for level in range(len(self.centres) - 1)] if self.warm_start else None
        solved = hierarchy_plans(
            list(self.centres),
            self.entropy_weight,
            marginals,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            warm_starts=warm_starts,
            gradient=self.plan_gradient,
        )
        if self.warm_start and self.training:
            for level, plan in enumerate(solved):
                for buffer, potential in zip(self._potentials(level), plan.potentials):
                    buffer.copy_(potential)
        return solved

    @torch.no_grad()
    def hierarchy(self) -> Hierarchy:
        """The tree that the present centres span, on the CPU."""
        return Hierarchy.from_plans(self.level_sizes, [plan.plan for plan in self.plans()])

    def _feature_centres(self, centres: Tensor) -> Tensor:
        return centres.detach() if self.mode == 'decoupled' else centres

    def _activations(self, similarity: Tensor) -> Tensor:
        return torch.softmax(similarity / self.temperature, dim=1)

    def _match(self, similarities: Sequence[Tensor], plans: Sequence[TransportPlan]) -> Tensor:
        activations = [self._activations(similarity) for similarity in similarities]
        pairs = []
        for level, plan in enumerate(plans):
            distance = self.matching_loss(activations[level], activations[level + 1], plan.plan)
            if not bool(torch.isfinite(distance)):
                raise FloatingPointError(
                    f'The matching loss between levels {level + 1} and {level + 2} is not finite at '
                    f'entropy_weight={self.entropy_weight:g} (marginal violation {plan.violation:.2g}); the code '
                    'holds NaN or infinity. Resume from the last checkpoint with a lower learning rate or without amp.'
                )
            pairs.append(distance)
        return torch.stack(pairs).sum()

    def _potentials(self, level: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f'row_potential_{level}'), getattr(self, f'column_potential_{level}')

    @torch.no_grad()
    def _figures(self, similarities: Sequence[Tensor], plans: Sequence[TransportPlan]) -> dict[str, Tensor]:
        """Clusters in use per level (share that wins a position of the batch) and diagnostics per plan."""
        figures: dict[str, Tensor] = {}
        for level, similarity in enumerate(similarities, start=1):
            usage = cluster_usage(similarity.argmax(1), similarity.shape[1])
            figures[f'omh_used_{level}'] = (usage > 0).float().mean()
        for level, plan in enumerate(plans, start=1):
            diagnostics = diagnose_plan(plan)
            for name in ('sparsity', 'parents_mean', 'parents_max', 'violation', 'iterations'):
                value = float(getattr(diagnostics, name))
                figures[f'omh_{name}_{level}{level + 1}'] = torch.tensor(value)
        return figures


def _flatten(maps: Tensor) -> Tensor:
    """(B, K, h, w) -> (P, K)."""
    return maps.flatten(2).transpose(1, 2).flatten(0, 1)
