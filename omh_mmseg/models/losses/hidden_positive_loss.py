"""HP's losses: contrast with hidden positives and photometric consistency (docs/methods/hp.md 3B.5 to 3B.8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.models.losses.hidden_positive_contrast import draw_random_negatives, hidden_positive_contrast
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import COUNT, SHARE, WEIGHT, ranges
from omh_mmseg.utils.precision import wide_dtype, widened

PRODUCTS = dict(float16=torch.float16, bfloat16=torch.bfloat16)


def consistency_distance(projected: Tensor, augmented: Tensor) -> Tensor:
    """Mean over patches of ``|| z - z_aug + 1e-6 ||_2``; the gradient flows in both.

    Args:
        projected: z, unit rows (N, D).
        augmented: z_aug of the same patches in another light, likewise.

    Returns:
        Scalar, in float32 or wider.

    Source: docs/methods/hp.md 3B.8.
    """
    wide = wide_dtype(projected)
    return F.pairwise_distance(projected.to(wide), augmented.to(wide), eps=1e-6).mean()


@MODELS.register_module()
class HiddenPositiveLoss(nn.Module):
    """Contrast with hidden positives, and the consistency with a photometric view.

    Args:
        temperature: tau, at least 0.02.
        random_negatives: rho, the share of all patches that count as negatives beside the positives, in [0, 1].
        consistency_weight: alpha, at least 0.
        reweighting: Weigh anchors by the weight of their positives.
        fp16_masks: See `hidden_positive_contrast`; off by default, on to compare with the reference bit by bit.
        chunk_elements: See `hidden_positive_contrast`.
        products: None, ``'bfloat16'`` or ``'float16'``: the products of the contrast, whose number grows with the
            square of the batch, in half precision; see `hidden_positive_contrast`.

    Raises:
        ValueError: If a number is out of its range, or the type of products unknown.

    Source: Seong et al., Leveraging Hidden Positives for Unsupervised Semantic Segmentation, CVPR 2023;
    docs/methods/hp.md 3B.5 to 3B.8.
    """

    @ranges(temperature='[0.02, inf)', random_negatives=SHARE, consistency_weight=WEIGHT, chunk_elements=COUNT)
    def __init__(
        self,
        temperature: float,
        random_negatives: float,
        consistency_weight: float,
        reweighting: bool = True,
        fp16_masks: bool = False,
        chunk_elements: int | None = None,
        products: str | None = None,
    ) -> None:
        super().__init__()
        if products is not None and products not in PRODUCTS:
            raise ValueError(f'products must be None or one of {tuple(PRODUCTS)}; got {products!r}.')
        self.products = PRODUCTS[products] if products else None
        self.random_negatives = random_negatives
        self.consistency_weight = consistency_weight
        self.temperature = temperature
        self.reweighting = reweighting
        self.fp16_masks = fp16_masks
        self.chunk_elements = chunk_elements

    def forward(
        self,
        projected: Tensor,
        mixed: Tensor,
        augmented: Tensor | None,
        features: Tensor,
        ema_code: Tensor,
        agnostic_pool: Tensor,
        specific_pool: Tensor,
        specific_weight: float,
    ) -> dict[str, Tensor]:
        """Losses of one batch, from maps; their positions are made unit rows here.

        Args:
            projected: P(s), (B, D, h, w).
            mixed: P(s_mix), (B, D, h, w).
            augmented: P(s_aug), (B, D, h, w); not needed where the consistency's weight is 0.
            features: Channel-dropped backbone features f, (B, C, h, w).
            ema_code: Channel-dropped code of the moving average, (B, D', h, w).
            agnostic_pool: R_ag, (M, C).
            specific_pool: R_sp, (M', D').
            specific_weight: lambda.

        Returns:
            ``loss_contrast``; ``loss_consistency`` with its weight applied, where that is above 0; and the figures
            ``hp_kept``, ``hp_agnostic_positives`` and ``hp_specific_positives`` of `ContrastResult`.

        Raises:
            ValueError: If the maps are not of one grid, or ``augmented`` is missing.
        """
        maps = dict(projected=projected, mixed=mixed, features=features, ema_code=ema_code)
        if self.consistency_weight > 0:
            if augmented is None:
                raise ValueError(f'consistency_weight is {self.consistency_weight}: it needs the augmented view.')
            maps['augmented'] = augmented
        grids = {name: (len(item), *item.shape[-2:]) for name, item in maps.items()}
        if len(set(grids.values())) != 1:
            raise ValueError(f'All maps must have one batch size and one grid (B, h, w); got {grids}.')
        positions = projected.shape[-2] * projected.shape[-1]
        rows = {name: unit_rows(item) for name, item in maps.items()}
        kept = draw_random_negatives(positions, len(rows['projected']), self.random_negatives, projected.device)
        result = hidden_positive_contrast(
            rows['projected'],
            rows['mixed'],
            rows['features'],
            rows['ema_code'],
            agnostic_pool,
            specific_pool,
            positions,
            self.temperature,
            specific_weight,
            kept,
            self.reweighting,
            self.fp16_masks,
            self.chunk_elements,
            self.products,
        )
        losses = dict(loss_contrast=result.loss)
        if self.consistency_weight > 0:
            losses['loss_consistency'] = self.consistency_weight * consistency_distance(
                rows['projected'], rows['augmented']
            )
        losses['hp_kept'] = result.kept
        losses['hp_agnostic_positives'] = result.agnostic_positives
        losses['hp_specific_positives'] = result.specific_positives
        return losses


def unit_rows(maps: Tensor) -> Tensor:
    """Positions of maps (B, C, h, w) as unit rows (B h w, C), image by image and row by row, in float32 or wider."""
    return F.normalize(widened(maps).flatten(2).transpose(1, 2).flatten(0, 1), dim=1)
