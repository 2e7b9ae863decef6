"""OMH: parallel clusterings of the code, related by optimal transport (docs/methods/omh.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from torch import Tensor, nn

from omh_mmseg.models.omh.figures import usage_figures
from omh_mmseg.models.omh.gradient_shares import GradientShares
from omh_mmseg.models.omh.level_sizes import level_sizes_of
from omh_mmseg.models.omh.parts import (
    CENTRES,
    CLUSTER,
    MATCH,
    MOVED,
    PLAN,
    REACH,
    build_part,
    refuse_idle,
    refuse_unknown,
    rename_old_keys,
)
from omh_mmseg.models.utils.similarity import code_similarity
from omh_mmseg.registry import MODELS
from omh_mmseg.transport import Hierarchy, TransportPlan
from omh_mmseg.utils.checks import SIZE, ranges
from omh_mmseg.utils.precision import widened


@MODELS.register_module()
class OMHHead(BaseModule):
    r"""N clusterings of the code at growing granularity, pulled into agreement along transport plans.

    Level l has centres C^l (K_l x D), similarity :math:`s^l_{pk} = \langle n(z_p), n(C^l_k) \rangle` and activation
    :math:`a^l_p = softmax_k(s^l_{pk} / \tau)`. Neighbouring levels are related by an entropic transport plan between
    their centres, and the activations of one are transported along it to be compared with those of the other.

    Parts own their options. ``dict(type='OMHHead')`` is the recommended form; a part's config without ``type`` changes
    the options of the default part.

    Args:
        in_channels: D of the code; filled in by the segmentor.
        num_classes: K_1; filled in by the segmentor.
        num_levels: N; 3 if None.
        expansion: rho, at least 1; ``K_{l+1} = round(rho K_l)``; 2.0 if None.
        level_sizes: Explicit K_1..K_N, coarsest first, in place of ``num_levels`` and ``expansion``.
        temperature: tau above 0 (a choice of this library).
        plan: Config of `PlanSolver`: lambda, marginals, solver.
        centres: How the centres learn: `GradientCentres` (default), `MomentumCentres` or `JointCentres`.
        match: Config of `HierarchyMatchingLoss`; None leaves the matching out. Its ``loss_weight`` is w_match.
        cluster: Config of `ClusterLoss` on the features, whose ``loss_weight`` is w_clu; None (default) for none.
        reach: What of these losses reaches the features, from which step: `HostShare` (default) or `FixedWeight`.
        **unknown: Refused by name.

    Raises:
        ValueError: On values outside the ranges above, and for options that would reach nothing.

    Source: docs/methods/omh.md 2 and 4, after arXiv 2403.06546.
    """

    MOVED: ClassVar = MOVED
    PART_DEFAULTS: ClassVar = dict(plan=PLAN, centres=CENTRES, match=MATCH, cluster=CLUSTER, reach=REACH)

    @ranges(
        in_channels=SIZE, num_classes=SIZE, num_levels='[1, 32]', expansion='[1, 64]', level_sizes=SIZE,
        temperature='[0.0001, 10000]',
    )  # fmt: skip
    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_levels: int | None = None,
        expansion: float | None = None,
        level_sizes: Sequence[int] | None = None,
        temperature: float = 0.1,
        plan: Mapping[str, Any] | None = None,
        centres: Mapping[str, Any] | None = None,
        match: Mapping[str, Any] | None = MATCH,
        cluster: Mapping[str, Any] | None = None,
        reach: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        refuse_unknown(unknown)
        self.level_sizes = level_sizes_of(num_classes, num_levels, expansion, level_sizes)
        self.temperature = temperature
        self.reach = build_part('reach', reach, REACH)
        self.rule = build_part('centres', centres, CENTRES, in_channels=in_channels, begin=self.reach.begin)
        self.plan = build_part('plan', plan, PLAN, level_sizes=self.level_sizes)
        self.match = None if match is None else build_part('match', match, MATCH)
        self.cluster = None if cluster is None else build_part('cluster', cluster, CLUSTER)
        refuse_idle(self)
        if len(self.level_sizes) == 1:
            MMLogger.get_current_instance().warning(
                'OMH with one level has no pair of levels: its plan, its matching loss and priors reach nothing.'
            )
        # With the same seed a host thus starts and trains from the same random numbers with and without OMH.
        with torch.random.fork_rng(devices=[]):
            self.centres = nn.ParameterList([torch.randn(size, in_channels) for size in self.level_sizes])
        self.centres.requires_grad_(self.rule.learns_by_gradient)
        self._register_load_state_dict_pre_hook(rename_old_keys)

    def forward(self, code: Tensor) -> list[Tensor]:
        """Similarities of all levels, coarsest first: (B, K_l, h, w) of a code (B, D, h, w)."""
        return [code_similarity(code, centres) for centres in self.centres]

    def begin_step(self) -> None:
        """Prepare a training step, before anything else is asked of the device; `loss` does without, but waits for it.

        Plans are solved on the host. What they are solved from is on its way there while the backbone computes.
        """
        self.plan.begin_step(list(self.centres))

    def needs_shares(self, step: int) -> bool:
        """Whether `loss` wants ``shares`` at a step."""
        return self.reach.scales_gradients and (self.match or self.cluster) is not None and self.reach.weight(step) > 0

    def loss(self, code: Tensor, step: int, shares: GradientShares | None = None) -> dict[str, Tensor]:
        """Losses of one training step, and the figures to watch.

        Args:
            code: (B, D, h, w), **not** detached.
            step: Number of the training step, from 0.
            shares: Of the host's code, whose first rows are ``code``, for `HostShare`.

        Returns:
            ``loss_omh_centre`` (`GradientCentres`), ``loss_omh_cluster`` and ``loss_omh_match`` (from step
            ``reach.begin`` on), weights applied; and, without gradient, ``omh_*`` figures of docs/methods/omh.md 4. A
            matching loss that is not finite shows in its figure ``omh_match_*``, named after the level pair.

        Raises:
            FloatingPointError: If a plan is not finite, naming the level pair, or the codes that k-means starts from.
            ValueError: If ``shares`` are wanted and absent.
        """
        weight = self.reach.weight(step)
        match = self.match if weight > 0 and len(self.level_sizes) > 1 else None
        with torch.autocast(code.device.type, enabled=False):
            # What reaches the features goes through the same cosines as the rest, which takes no gradient from them.
            reached = code.detach() if match is None else self.reach(code, shares, weight * match.loss_weight)
            directions = self._directions(reached)
            positions = directions.detach()
            if self.training:
                self.rule.begin_at(self.reach.begin)
                self.rule.begin_step(positions, list(self.centres), step)
            learning = F.normalize(torch.cat(list(self.centres)).to(positions.dtype), dim=1)
            centres = learning if self.rule.joint else learning.detach()
            seen = self._similarities(directions, centres)
            similarities = [similarity.detach() for similarity in seen]
            shown = self._activations(similarities) if self.plan.marginal == 'activation' else None
            plans, plan_figures = self.plan(list(self.centres), shown)
            winners = [similarity.argmax(1) for similarity in similarities]
            figures = {**usage_figures(winners, self.level_sizes), **plan_figures}
            priors = self.rule.priors(similarities, plans, self.temperature) if weight > 0 else None
            if priors is not None:
                winners = [(similarity + prior).argmax(1) for similarity, prior in zip(similarities, priors)]
            losses = self.rule.loss(learning.split(self.level_sizes), positions, winners, priors)
            if weight > 0 and self.cluster is not None:
                reached = self._directions(self.reach(code, shares, weight * self.cluster.loss_weight))
                total = self.cluster.over_levels(self._similarities(reached, centres), priors)
                losses['loss_omh_cluster'] = weight * total
            if match is not None:
                activations = self._activations(seen)
                terms = [match(*pair, plan.plan) for *pair, plan in zip(activations, activations[1:], plans)]
                losses['loss_omh_match'] = weight * torch.stack(terms).sum()
                for level, term in enumerate(terms, start=1):
                    figures[f'omh_match_{level}{level + 1}'] = term.detach() / match.loss_weight
            if self.training:
                self.rule.update(list(self.centres), positions, winners)
        return {**losses, **figures}

    def plans(self) -> list[TransportPlan]:
        """Plans between the present centres of all neighbouring levels."""
        return self.plan(list(self.centres))[0]

    @torch.no_grad()
    def hierarchy(self) -> Hierarchy:
        """The tree that the present centres span, on the CPU."""
        return Hierarchy.from_plans(self.level_sizes, [plan.plan for plan in self.plans()])

    @torch.no_grad()
    def follow_coarsest(self, centres: Tensor) -> None:
        """Make level 1 a copy of given centres (K_1, D), without a gradient from now on."""
        self.centres[0].requires_grad_(False).copy_(centres)

    def _directions(self, code: Tensor) -> Tensor:
        """Unit vectors of the positions, (P, D)."""
        return F.normalize(widened(code.permute(0, 2, 3, 1).flatten(0, 2)), dim=1)

    def _similarities(self, positions: Tensor, centres: Tensor) -> list[Tensor]:
        """Cosines (P, K_l) of each level, with the unit centres of all (K_1 + ... + K_N, D)."""
        return list((positions @ centres.t()).split(self.level_sizes, dim=1))

    def _activations(self, similarities: Sequence[Tensor]) -> list[Tensor]:
        return [torch.softmax(similarity / self.temperature, dim=1) for similarity in similarities]
