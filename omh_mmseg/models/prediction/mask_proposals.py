"""Principal mask proposals of images, brought to the borders of the image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.models.prediction.crf import DenseCRF
from omh_mmseg.models.utils.mask_proposals import MOST, NO_PROPOSAL, mask_log_probabilities, principal_masks
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import ranges


@MODELS.register_module()
class MaskProposals(nn.Module):
    """Cuts images into class-agnostic masks, by frozen features alone.

    An image takes at most ``most`` rounds, each an eigenvector of a covariance and a few passes over the grid
    (`principal_masks`), and one CRF over as many labels as masks are left.

    Args:
        threshold: psi: a position belongs to a mask from this share of the mask's largest similarity on. Below 0.1
            masks would not be binary after their clean-up (docs/methods/primaps.md 11.7).
        most: Largest number of masks of an image.
        crf: Keywords of `DenseCRF` to bring the masks to the borders of the image; None for no CRF.

    Source: docs/methods/primaps.md 3.
    """

    PART_DEFAULTS: ClassVar = dict(crf=dict(type=DenseCRF))

    @ranges(threshold='[0.1, 1)', most=f'[1, {MOST}]')
    def __init__(self, threshold: float = 0.4, most: int = MOST, crf: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.threshold, self.most = threshold, most
        self.crf = None if crf is None else DenseCRF(**crf)

    @property
    def settings(self) -> str:
        """All that proposals depend on beside features and image, as text."""
        crf = 'no-crf'
        if self.crf is not None:
            crf = f'crf-{hashlib.sha256(repr(self.crf.settings).encode()).hexdigest()[:8]}'
        return f'{self.threshold!r}-{self.most}-{crf}'

    @torch.no_grad()
    def forward(self, features: Tensor, size: tuple[int, int], images: Sequence[Tensor] = ()) -> Tensor:
        """Numbers of the proposals, uint8 (B, H, W): 1, 2, ..., and `NO_PROPOSAL` where there is none.

        Args:
            features: Frozen features (B, C, h, w).
            size: H and W of their images.
            images: The images, BGR uint8 (3, H, W), which a CRF needs.

        Raises:
            FloatingPointError: Features are not finite.
        """
        if not bool(torch.isfinite(features).all()):
            raise FloatingPointError('the frozen features are not finite; look at the backbone and at its images.')
        maps = torch.full((len(features), *size), NO_PROPOSAL, dtype=torch.uint8, device=features.device)
        numbers: list[int] = []

        def jobs() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
            for number, feature in enumerate(features):
                logarithms = mask_log_probabilities(principal_masks(feature, self.threshold, self.most))
                if logarithms is not None:
                    numbers.append(number)
                    full = F.interpolate(logarithms[None], size=size, mode='bilinear', align_corners=False)[0]
                    yield (images[number] if images else full), dict(masks=full)

        with torch.autocast(features.device.type, enabled=False):
            results = ((job[1] for job in jobs()) if self.crf is None else self.crf.refine(jobs()))
            for place, result in enumerate(results):
                labels = result['masks'].argmax(0)
                maps[numbers[place]] = torch.where(labels == 0, NO_PROPOSAL, labels).to(torch.uint8)
        return maps
