"""PriMaPs' view of an image for the running prototypes (docs/methods/primaps.md 6)."""

from __future__ import annotations

from torchvision.transforms import v2

from omh_mmseg.models.utils.photometric_view import PhotometricView, random_blur
from omh_mmseg.utils.checks import SHARE, ranges

SIDE = 21
"""Of the blur, in pixels."""


class StudentView(PhotometricView):
    """Always a blur of 21 x 21 pixels with sigma from U(0.1, 2); then, by equal chances, colour jitter or grey scale.

    Args:
        space: See `PhotometricView`.
        strength: Half the range of the factors of brightness, contrast and saturation around 1, and the largest shift
            of the hue circle, at most 0.5.
        jitter: Probability of the colour jitter, where its turn has come.
        grayscale: Likewise of grey scale.

    Source: docs/methods/primaps.md 6.
    """

    @ranges(strength='[0, 0.5]', jitter=SHARE, grayscale=SHARE)
    def __init__(
        self, space: str = 'reference', strength: float = 0.1, jitter: float = 0.3, grayscale: float = 0.1
    ) -> None:
        super().__init__(space, blur_size=SIDE)
        colours = v2.RandomApply([v2.ColorJitter(strength, strength, strength, strength)], p=jitter)
        self.transform = v2.Compose([random_blur(SIDE), v2.RandomChoice([colours, v2.RandomGrayscale(grayscale)])])
