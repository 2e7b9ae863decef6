"""OMH's matching loss between neighbouring levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omh_mmseg.registry import MODELS
from omh_mmseg.transport import matching_distance
from omh_mmseg.transport.matching import CONDITIONINGS, DIRECTIONS, TARGETS
from omh_mmseg.utils.checks import WEIGHT, ranges
from omh_mmseg.utils.precision import wide_dtype


@MODELS.register_module()
class HierarchyMatchingLoss(nn.Module):
    r"""Agreement of the transported activations of one level with those of its neighbour.

    .. math::
        b_p[j] = \max_i a^{lower}_p[i] \tilde T_{ij}, \qquad
        L = \frac{1}{P} \sum_p \sum_j | b_p[j] - a^{higher}_p[j] |

    Max-pooling is the analogue of the L-infinity Wasserstein distance: each higher cluster is explained by the one
    lower cluster that carries most of it.

    Args:
        direction: Which level is transported: ``'fine_to_coarse'`` (default, a choice of this library),
            ``'coarse_to_fine'`` or ``'both'`` (the mean of the two).
        conditioning: ``'row'`` divides the plan by the mass of the transported cluster (default, a choice of this
            library), ``'none'`` uses the raw plan.
        target: The side that only serves as a target: ``'lower'`` (the transported activations), ``'higher'`` (those
            that they are compared with) or ``'none'`` (default: both move).
        loss_weight: Factor on the result.

    Raises:
        ValueError: On unknown options.

    Source: docs/methods/omh.md 2.4, after arXiv 2403.06546.
    """

    @ranges(loss_weight=WEIGHT)
    def __init__(
        self,
        direction: str = 'fine_to_coarse',
        conditioning: str = 'row',
        target: str = 'none',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if direction not in DIRECTIONS:
            raise ValueError(f'direction must be one of {DIRECTIONS}; got {direction!r}.')
        if conditioning not in CONDITIONINGS:
            raise ValueError(f'conditioning must be one of {CONDITIONINGS}; got {conditioning!r}.')
        if target not in TARGETS:
            raise ValueError(f'target must be one of {TARGETS}; got {target!r}.')
        self.direction = direction
        self.target = target
        self.conditioning = conditioning
        self.loss_weight = loss_weight

    def forward(self, coarse_activations: Tensor, fine_activations: Tensor, plan: Tensor) -> Tensor:
        """Loss of one level pair.

        Args:
            coarse_activations: (P, K_l), rows on the simplex.
            fine_activations: (P, K_{l+1}), rows on the simplex.
            plan: (K_l, K_{l+1}).

        Returns:
            Scalar, in float32 or wider whatever the autocast state.
        """
        wide = wide_dtype(coarse_activations)
        with torch.autocast(coarse_activations.device.type, enabled=False):
            distance = matching_distance(
                coarse_activations.to(wide),
                fine_activations.to(wide),
                plan.to(wide),
                self.direction,
                self.conditioning,
                self.target,
            )
        return self.loss_weight * distance
