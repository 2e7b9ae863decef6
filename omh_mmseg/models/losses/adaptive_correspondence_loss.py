"""EAGLE's correspondence loss, whose shift follows the batch (docs/methods/eagle.md 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omh_mmseg.models.losses.stego_correlation_loss import correlation_term, sample_positions, super_permutation
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import FINITE, WEIGHT, ranges


@MODELS.register_module()
class AdaptiveCorrespondenceLoss(nn.Module):
    r"""Correspondence of each image with its other view, and with random other images.

    With F the cosines of the frozen features, C those of the codes, and means over all pairs of positions of the batch,

    .. math::
        L(b) = - \mathrm{mean}(\mathrm{clamp}(C, 0, 0.8) (F - b)) \qquad
        b_+ = |\bar F - \bar C - \beta| \qquad b_- = \sigma (\bar F + \bar C - \beta)

    and the loss is :math:`w_+ L(b_+) + w_- L(b_-)`. The shifts have a gradient through :math:`\bar C`; F has none.

    Args:
        positive_weight: ``w_+``.
        negative_weight: ``w_-``.
        shift_bias: beta.
        shift_value: sigma.
        feature_samples: S; S x S positions are drawn per image.
        negative_samples: Random pairings per step.
        pointwise: See `correlation_term`.
        stabilize: See `correlation_term`.

    Source: docs/methods/eagle.md 3; the published numbers in 4.5.
    """

    @ranges(
        positive_weight=WEIGHT, negative_weight=WEIGHT, shift_bias=FINITE, shift_value=FINITE,
        feature_samples='[1, 128]', negative_samples='[1, 1024]',
    )  # fmt: skip
    def __init__(
        self,
        positive_weight: float,
        negative_weight: float,
        shift_bias: float = 0.0,
        shift_value: float = 3.5,
        feature_samples: int = 11,
        negative_samples: int = 5,
        pointwise: bool = True,
        stabilize: bool = True,
    ) -> None:
        super().__init__()
        self.positive_weight, self.negative_weight = positive_weight, negative_weight
        self.shift_bias, self.shift_value = shift_bias, shift_value
        self.feature_samples, self.negative_samples = feature_samples, negative_samples
        self.options = dict(pointwise=pointwise, stabilize=stabilize)

    def positive_shift(self, features: Tensor, code: Tensor) -> Tensor:
        """``b_+`` of the mean cosines, scalars."""
        return (features - code - self.shift_bias).abs()

    def negative_shift(self, features: Tensor, code: Tensor) -> Tensor:
        """``b_-`` of the mean cosines, scalars."""
        return self.shift_value * (features + code - self.shift_bias)

    def forward(
        self,
        features: tuple[Tensor, Tensor, Tensor],
        codes: tuple[Tensor, Tensor, Tensor],
        coordinates: tuple[Tensor, Tensor, Tensor] | None = None,
        permutations: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted terms of one batch.

        Args:
            features: Channel-dropped backbone features f of the images, f+ of the same images with a mask of their own,
                and f~ of the other view, each (B, C, h, w).
            codes: c, c+ and c~, each (B, D, h, w).
            coordinates: Three sets of sampling positions (B, S, S, 2); drawn if None.
            permutations: (negative_samples, B) image numbers; drawn if None.

        Returns:
            ``loss_positive``, ``loss_negative``: scalars, weights applied.

        Raises:
            ValueError: If the batch holds fewer than two images and permutations are to be drawn.
        """
        batch, device = len(codes[0]), codes[0].device
        if coordinates is None:
            shape = (3, batch, self.feature_samples, self.feature_samples, 2)
            first, second, third = torch.rand(shape, device=device) * 2 - 1
        else:
            first, second, third = coordinates
        if permutations is None:
            permutations = torch.stack([super_permutation(batch, device) for _ in range(self.negative_samples)])
        f, f_same, f_view = (one.detach() for one in features)
        c, c_same, c_view = codes
        positive = correlation_term(
            sample_positions(f_view, third), sample_positions(f_same, second), sample_positions(c_view, third),
            sample_positions(c_same, second), self.positive_shift, **self.options,
        )  # fmt: skip
        sampled_f, sampled_c = sample_positions(f, first), sample_positions(c, first)
        negatives = [
            correlation_term(
                sampled_f, sample_positions(f[draw], second), sampled_c, sample_positions(c[draw], second),
                self.negative_shift, **self.options,
            )
            for draw in permutations
        ]  # fmt: skip
        return dict(
            loss_positive=self.positive_weight * positive,
            loss_negative=self.negative_weight * torch.stack(negatives).mean(),
        )
