"""Cross-entropy in which classes count the less, the more of the pixels they are given."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.models.losses.upsampled_cross_entropy import upsampled_cross_entropy
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import WEIGHT, ranges
from omh_mmseg.utils.precision import widened


@MODELS.register_module()
class ClassFrequencyLoss(nn.Module):
    r"""Focal weights by class.

    With the mean probability :math:`\pi_k` of class k over all pixels of the batch,

    .. math::
        L = \frac{1}{N} \sum_{p} \omega_{t_p} (-\log softmax(l_p)_{t_p}), \quad \omega_k = (1 - \pi_k)^\gamma

    over the N pixels; those without a target add 0 and count in N. No gradient flows through the weights.

    Args:
        gamma: Exponent of the weights.
        loss_weight: Factor on the result.

    Source: docs/methods/primaps.md 5.1.
    """

    @ranges(gamma=WEIGHT, loss_weight=WEIGHT)
    def __init__(self, gamma: float = 2.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.gamma, self.loss_weight = gamma, loss_weight

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Scalar, in float32 or wider.

        Args:
            logits: l on the grid of the code, (B, K, h, w); brought to the size of the targets bilinearly.
            targets: t, (B, H, W) integers; none where they are outside 0..K-1.
        """
        logits = widened(logits)
        weights = self.weights(logits.detach(), targets)
        return self.loss_weight * upsampled_cross_entropy(logits, targets, class_weights=weights, over_all=True)

    @torch.no_grad()
    def weights(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Omega (K) of logits (B, K, h, w) at the size of targets (B, H, W)."""
        size = targets.shape[-2:]
        # One image at a time: at the size of the targets the logits of a batch are large.
        shares = [
            torch.softmax(F.interpolate(one, size=size, mode='bilinear', align_corners=False), 1).mean((0, 2, 3))
            for one in logits.split(1)
        ]
        return (1 - torch.stack(shares).mean(0)) ** self.gamma
