"""SmooSeg's smoothness energy, without a tensor over pairs of positions (docs/methods/smooseg.md 3C.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.models.losses.stego_correlation_loss import NORM_EPSILON, super_permutation
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import FINITE, ranges
from omh_mmseg.utils.precision import wide_dtype


class ImageMoments(NamedTuple):
    """All that the energy needs to know of B images: means over the positions of each, f and Y of unit length.

    Attributes:
        joint: Mean of the outer products f Y^T, (B, C, K).
        feature: Mean of f, (B, C).
        assignment: Mean of Y, (B, K).
    """

    joint: Tensor
    feature: Tensor
    assignment: Tensor

    def select(self, images: Tensor) -> ImageMoments:
        """Moments of the images with these numbers (int64, any length)."""
        return ImageMoments(*(moment[images] for moment in self))


def image_moments(features: Tensor, assignments: Tensor) -> ImageMoments:
    """Moments of features f and assignments Y at the same positions.

    The lengths of f are folded into the much smaller Y, so that no normalised copy of the features is made.

    Args:
        features: (B, C, h, w), no gradient is taken.
        assignments: (B, K, h, w).
    """
    f = features.detach().flatten(2)  # (B, C, P)
    y = F.normalize(assignments.flatten(2), dim=1, eps=NORM_EPSILON)  # (B, K, P)
    # torch's own norm takes three times as long across channels on a CPU.
    length = f.square().sum(1, keepdim=True).sqrt_()
    share = 1 / (length.clamp_min(NORM_EPSILON) * f.shape[2])  # (B, 1, P)
    joint = torch.bmm(f, (y * share).transpose(1, 2))
    feature = torch.bmm(f, share.transpose(1, 2)).squeeze(2)
    return ImageMoments(joint, feature, y.mean(2))


def smoothness_energy(first: ImageMoments, second: ImageMoments, shift: float, pointwise: bool = True) -> Tensor:
    r"""Mean of ``(W_pq - b) (1 - <Y_p, Y'_q>)`` over all pairs of positions of paired images.

    With :math:`F_{pq} = \langle f_p, f'_q \rangle`, the mean m of F over the whole batch and the mean
    :math:`\bar F_p` of a row, the centred closeness is :math:`W_{pq} = F_{pq} - \bar F_p + m`. As the rows of
    :math:`F - \bar F` sum to zero and :math:`\bar F_p = \langle f_p, \bar f' \rangle`,

    .. math::
        E = (m - b) (1 - \langle \bar Y, \bar Y' \rangle)
            - \langle J, J' - \bar f' \bar Y'^T \rangle, \qquad J = \frac{1}{P} \sum_p f_p Y_p^T,

    averaged over the images. Without centring, W is F and

    .. math::
        E = m - b + b \langle \bar Y, \bar Y' \rangle - \langle J, J' \rangle.

    This is exact, in time O(P C K) and memory O(P K) beside the inputs, where the sum over pairs takes O(P P' (C + K))
    and O(P P'). Only for fewer positions than about half of min(C, K) are there more products than that.

    Args:
        first: Moments of the images that p runs over.
        second: Moments of as many images, over which q runs.
        shift: b.
        pointwise: Centre the closeness.

    Returns:
        Scalar.

    Source: docs/methods/stego.md 3A.3, docs/methods/smooseg.md 3C.3.
    """
    mean_closeness = (first.feature * second.feature).sum(1).mean()
    likeness = (first.assignment * second.assignment).sum(1).mean()
    if not pointwise:
        return mean_closeness - shift + shift * likeness - (first.joint * second.joint).sum((1, 2)).mean()
    centred = second.joint - second.feature[:, :, None] * second.assignment[:, None, :]
    return (mean_closeness - shift) * (1 - likeness) - (first.joint * centred).sum((1, 2)).mean()


@MODELS.register_module()
class SmoothnessEnergyLoss(nn.Module):
    r"""Close features shall get the same assignment, distant ones another; within images and across random pairs.

    .. math::
        E = \overline{(W_{ii} - b_1) \delta} + \overline{(W_{ig(i)} - b_2) \delta}, \qquad
        \delta_{pq} = 1 - \langle n(Y_p), n(Y_q) \rangle

    Args:
        within_shift: b_1 ("pos_intra_shift").
        across_shift: b_2 ("neg_inter_shift").
        pointwise: Centre the closeness W over the positions of the second image; see `smoothness_energy`.

    Source: docs/methods/smooseg.md 3C.3; shifts of the published runs in 4.5.
    """

    @ranges(within_shift=FINITE, across_shift=FINITE)
    def __init__(self, within_shift: float, across_shift: float, pointwise: bool = True) -> None:
        super().__init__()
        self.within_shift = within_shift
        self.across_shift = across_shift
        self.pointwise = pointwise

    def forward(self, features: Tensor, assignments: Tensor, permutation: Tensor | None = None) -> dict[str, Tensor]:
        """Both energies of one batch, in float32 or wider whatever the autocast state.

        Args:
            features: Channel-dropped backbone features f, (B, C, h, w); no gradient is taken.
            assignments: Soft assignments Y, (B, K, h, w), on the simplex along K.
            permutation: g, the other image of each, int64 (B,); drawn if None.

        Returns:
            ``loss_within``, ``loss_across``: scalars.

        Raises:
            ValueError: If the two do not lie on one grid, or the batch holds fewer than two images and the permutation
                is to be drawn.
        """
        if features.shape[0] != assignments.shape[0] or features.shape[2:] != assignments.shape[2:]:
            raise ValueError(
                'features (B, C, h, w) and assignments (B, K, h, w) must be of the same images and grid; got '
                f'{tuple(features.shape)} and {tuple(assignments.shape)}.'
            )
        if permutation is None:
            permutation = super_permutation(features.shape[0], features.device)
        wide = wide_dtype(assignments)
        with torch.autocast(features.device.type, enabled=False):
            moments = image_moments(features.to(wide), assignments.to(wide))
            others = moments.select(permutation)
            return dict(
                loss_within=smoothness_energy(moments, moments, self.within_shift, self.pointwise),
                loss_across=smoothness_energy(moments, others, self.across_shift, self.pointwise),
            )
