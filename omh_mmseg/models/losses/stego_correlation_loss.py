"""STEGO's feature correspondence distillation (docs/methods/stego.md 3A)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import FINITE, WEIGHT, ranges

NORM_EPSILON = 1e-10
STABILIZE_CEILING = 0.8


def sample_positions(maps: Tensor, coordinates: Tensor) -> Tensor:
    """Bilinear samples of a map at random positions.

    Args:
        maps: (B, C, H, W).
        coordinates: (B, S, S, 2) in [-1, 1], last axis (x, y); corners are pixel centres (align_corners).

    Returns:
        (B, C, S, S). The two S axes are exchanged, as docs/methods/stego.md 3A.2 has it.
    """
    return F.grid_sample(
        maps, coordinates.transpose(1, 2).to(maps.dtype), mode='bilinear', padding_mode='border', align_corners=True
    )


def super_permutation(size: int, device: torch.device | str | None = None) -> Tensor:
    """A random map without fixed points, as docs/methods/stego.md 3A.4 draws it; not always a bijection.

    Args:
        size: B, at least 2.
        device: Where to draw, with the generator of that device.

    Returns:
        int64 (B,).

    Raises:
        ValueError: If size is below 2: an image has no other one to be contrasted with.
    """
    if size < 2:
        raise ValueError(
            f'Negatives pair each image with another one of its batch, and this batch holds {size}. '
            'Use a train batch size of at least 2 and drop a last batch of one image.'
        )
    draw = torch.randperm(size, device=device)
    return (draw + (draw == torch.arange(size, device=device))) % size


def correlation_term(
    features_1: Tensor,
    features_2: Tensor,
    code_1: Tensor,
    code_2: Tensor,
    shift: float | Callable[[Tensor, Tensor], Tensor],
    pointwise: bool = True,
    zero_clamp: bool = True,
    stabilize: bool = False,
) -> Tensor:
    """Mean of ``- clamp(Cc) (F - b)`` over all pairs of positions of paired images.

    Args:
        features_1: (B, C, h, w), no gradient is taken.
        features_2: (B, C, i, j).
        code_1: (B, D, h, w).
        code_2: (B, D, i, j).
        shift: b, or what makes it of the means of F and of Cc, the latter before it is clamped.
        pointwise: Centre F over the positions of the second image, then restore the mean of the whole tensor.
        zero_clamp: Clamp the code's cosine from below at 0.
        stabilize: Clamp it from above at 0.8.

    Returns:
        Scalar.

    Source: docs/methods/stego.md 3A.3.
    """
    with torch.no_grad():
        feature_cosine = _pairwise_cosine(features_1, features_2)
        if pointwise:
            old_mean = feature_cosine.mean()
            feature_cosine = feature_cosine - feature_cosine.mean(dim=2, keepdim=True)
            feature_cosine = feature_cosine - feature_cosine.mean() + old_mean
    code_cosine = _pairwise_cosine(code_1, code_2)
    b = shift(feature_cosine.mean(), code_cosine.mean()) if callable(shift) else shift
    if zero_clamp:
        code_cosine = code_cosine.clamp(min=0.0)
    if stabilize:
        code_cosine = code_cosine.clamp(max=STABILIZE_CEILING)
    return -(code_cosine * (feature_cosine - b)).mean()


def _pairwise_cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosines of all positions of paired images: (B, C, h, w), (B, C, i, j) -> (B, hw, ij)."""
    first = F.normalize(first.flatten(2), dim=1, eps=NORM_EPSILON)
    second = F.normalize(second.flatten(2), dim=1, eps=NORM_EPSILON)
    return torch.bmm(first.transpose(1, 2), second)


@MODELS.register_module()
class STEGOCorrelationLoss(nn.Module):
    r"""Correspondence loss with itself, with the nearest neighbour and with random other images.

    .. math::
        L = w_{self} L_{self} + w_{knn} L_{knn} + w_{rand} L_{rand}

    Args:
        self_weight: w_self ("pos_intra").
        self_shift: b_self.
        knn_weight: w_knn ("pos_inter").
        knn_shift: b_knn.
        rand_weight: w_rand ("neg_inter").
        rand_shift: b_rand.
        feature_samples: S; S x S positions are drawn per image.
        negative_samples: Random pairings per step.
        pointwise: See `correlation_term`.
        zero_clamp: See `correlation_term`.
        stabilize: See `correlation_term`.

    Raises:
        ValueError: If a count is below 1.

    Source: docs/methods/stego.md 3A.2 to 3A.4; weights and shifts of the published runs in 4.2 and 4.3.
    """

    @ranges(
        self_weight=WEIGHT, self_shift=FINITE, knn_weight=WEIGHT, knn_shift=FINITE, rand_weight=WEIGHT,
        rand_shift=FINITE, feature_samples='[1, 128]', negative_samples='[1, 1024]',
    )  # fmt: skip
    def __init__(
        self,
        self_weight: float,
        self_shift: float,
        knn_weight: float,
        knn_shift: float,
        rand_weight: float,
        rand_shift: float,
        feature_samples: int = 11,
        negative_samples: int = 5,
        pointwise: bool = True,
        zero_clamp: bool = True,
        stabilize: bool = False,
    ) -> None:
        super().__init__()
        self.self_weight, self.self_shift = self_weight, self_shift
        self.knn_weight, self.knn_shift = knn_weight, knn_shift
        self.rand_weight, self.rand_shift = rand_weight, rand_shift
        self.feature_samples = feature_samples
        self.negative_samples = negative_samples
        self.options = dict(pointwise=pointwise, zero_clamp=zero_clamp, stabilize=stabilize)

    def forward(
        self,
        features: Tensor,
        code: Tensor,
        neighbour_features: Tensor,
        neighbour_code: Tensor,
        coordinates: tuple[Tensor, Tensor] | None = None,
        permutations: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted terms of one batch.

        Args:
            features: Channel-dropped backbone features f, (B, C, H, W).
            code: c, (B, D, H, W).
            neighbour_features: f+, (B, C, H, W).
            neighbour_code: c+, (B, D, H, W).
            coordinates: Two sets of sampling positions (B, S, S, 2); drawn if None.
            permutations: (negative_samples, B) image numbers; drawn if None.

        Returns:
            ``loss_self``, ``loss_knn``, ``loss_rand``: scalars, weights applied.

        Raises:
            ValueError: If the batch holds fewer than two images and permutations are to be drawn.
        """
        batch, device = code.shape[0], code.device
        if coordinates is None:
            shape = (batch, self.feature_samples, self.feature_samples, 2)
            coordinates = torch.rand(shape, device=device) * 2 - 1, torch.rand(shape, device=device) * 2 - 1
        if permutations is None:
            permutations = torch.stack([super_permutation(batch, device) for _ in range(self.negative_samples)])
        first, second = coordinates
        features = features.detach()
        f, c = sample_positions(features, first), sample_positions(code, first)
        f_knn = sample_positions(neighbour_features.detach(), second)
        c_knn = sample_positions(neighbour_code, second)
        rand = [
            correlation_term(
                f, sample_positions(features[draw], second), c, sample_positions(code[draw], second),
                self.rand_shift, **self.options,
            )
            for draw in permutations
        ]
        return dict(
            loss_self=self.self_weight * correlation_term(f, f, c, c, self.self_shift, **self.options),
            loss_knn=self.knn_weight * correlation_term(f, f_knn, c, c_knn, self.knn_shift, **self.options),
            loss_rand=self.rand_weight * torch.stack(rand).mean(),
        )
