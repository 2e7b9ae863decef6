"""Cluster loss of STEGO's probe and of OMH's levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor, nn

from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import POSITIVE, WEIGHT, ranges
from omh_mmseg.utils.precision import widened


def cluster_loss(similarity: Tensor, alpha: float | None = None, prior: Tensor | None = None) -> Tensor:
    """``- mean_p sum_k q_pk s_pk`` with q one-hot at the arg-max of s + o, or ``softmax(alpha (s + o))``.

    Args:
        similarity: Cosines s with the K clusters on dimension 1: (P, K) or (B, K, h, w).
        alpha: None for the hard assignment, else the inverse temperature of the soft one, above 0.
        prior: o, of the same shape; 0 if None.

    Returns:
        Scalar in the dtype of the input; the gradient of the soft form flows through both factors.
    """
    score = similarity if prior is None else similarity + prior
    if alpha is None:
        return -similarity.gather(1, score.argmax(dim=1, keepdim=True)).mean()
    return -(torch.softmax(alpha * score, dim=1) * similarity).sum(dim=1).mean()


@MODELS.register_module()
class ClusterLoss(nn.Module):
    r"""Pulls each position towards its cluster's centre.

    .. math::
        L = - \frac{1}{P} \sum_p \sum_k q_{pk} s_{pk}

    Args:
        alpha: None for hard assignments (the hosts' probes and OMH's default), else the inverse temperature.
        loss_weight: Factor on the result.

    Raises:
        ValueError: If alpha is not None and not above 0.

    Source: docs/methods/stego.md 3A.5; docs/methods/omh.md 2.2.
    """

    @ranges(alpha=POSITIVE, loss_weight=WEIGHT)
    def __init__(self, alpha: float | None = None, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.loss_weight = loss_weight

    def forward(self, similarity: Tensor, prior: Tensor | None = None) -> Tensor:
        """Loss of cosines (P, K) or (B, K, h, w), with the prior o if any; scalar, computed in float32 or wider."""
        return self.loss_weight * cluster_loss(widened(similarity), self.alpha, prior)

    def over_levels(self, similarities: Sequence[Tensor], priors: Sequence[Tensor] | None) -> Tensor:
        """Sum of the losses of several levels, each with its prior if there are any; scalar."""
        return torch.stack(list(map(self, similarities, priors or repeat(None)))).sum()
