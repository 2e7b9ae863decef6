"""A second view of images in another light, on the same pixels (docs/methods/data.md 5.6)."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from omh_mmseg.utils.checks import SHARE, WEIGHT, ranges

SPACES = ('reference', 'image')
FULL_SCALE = 255.0
WIDE_BLUR = 11
"""Side of the kernels, in pixels, from which on a blur goes by axis."""


class BlurByAxis(v2.GaussianBlur):
    """torchvision's blur with its draws, along one axis after the other: 2 n products per pixel in place of n^2.

    Which takes a quarter of the time at 21 pixels a side, and longer at 5.
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """See torchvision."""
        for size in ([self.kernel_size[0], 1], [1, self.kernel_size[1]]):
            inpt = v2.functional.gaussian_blur(inpt, size, **params)
        return inpt


def random_blur(side: int) -> v2.GaussianBlur:
    """Gaussian blur with sigma from U(0.1, 2) and a kernel of this side."""
    return (BlurByAxis if side >= WIDE_BLUR else v2.GaussianBlur)((side, side), (0.1, 2.0))


class PhotometricView(nn.Module):
    """Colour jitter, grey scale and blur, each image with draws of its own from torch's global generator.

    Args:
        space: ``'reference'`` jitters the normalised tensor, as the reference does: its operations clamp to [0, 1] and
            so cut off all that is darker than the mean and brighter than one standard deviation above it. ``'image'``
            jitters the image with values in [0, 1] before the normalisation, as such operations are meant.
        brightness: Half the range of the factor around 1.
        contrast: Likewise.
        saturation: Likewise.
        hue: Largest shift of the hue circle, at most 0.5.
        grayscale: Probability of grey scale.
        blur: Probability of a Gaussian blur with sigma from U(0.1, 2).
        blur_size: Side of its kernel in pixels, odd.

    Raises:
        ValueError: On an unknown space or a number out of its range.

    Source: docs/methods/data.md 5.6, docs/methods/hp.md 8.14.
    """

    @ranges(
        brightness=WEIGHT, contrast=WEIGHT, saturation=WEIGHT, hue='[0, 0.5]', grayscale=SHARE, blur=SHARE,
        blur_size='[1, 63]',
    )  # fmt: skip
    def __init__(
        self,
        space: str = 'reference',
        brightness: float = 0.3,
        contrast: float = 0.3,
        saturation: float = 0.3,
        hue: float = 0.1,
        grayscale: float = 0.2,
        blur: float = 0.5,
        blur_size: int = 5,
    ) -> None:
        super().__init__()
        if space not in SPACES:
            raise ValueError(f'The space of the photometric view must be one of {SPACES}; got {space!r}.')
        if blur_size % 2 == 0:
            raise ValueError(f'blur_size of the photometric view must be odd; got {blur_size}.')
        self.space = space
        self.least_side = blur_size // 2 + 1 if blur > 0 else 1
        self.transform = v2.Compose(
            [
                v2.ColorJitter(brightness, contrast, saturation, hue),
                v2.RandomGrayscale(grayscale),
                v2.RandomApply([random_blur(blur_size)], p=blur),
            ]
        )

    @property
    def settings(self) -> str:
        """All that a view depends on beside the image and the draws, as text."""
        return re.sub(r'\s+', ' ', f'{self.space} {self.transform!r}')

    @torch.no_grad()
    def forward(self, images: Tensor, mean: Tensor | None = None, std: Tensor | None = None) -> Tensor:
        """The view of a batch.

        Args:
            images: Normalised, (B, 3, H, W), in RGB.
            mean: Of the normalisation, in 0..255, of 3 values; None where nothing was normalised.
            std: Likewise.

        Returns:
            (B, 3, H, W), normalised like the input. In the space ``'reference'`` its values lie in [0, 1].

        Raises:
            ValueError: The images are too small for the blur.
        """
        if min(images.shape[-2:]) < self.least_side:
            raise ValueError(
                f'the blur of the photometric view needs images of at least {self.least_side} pixels a side; these '
                f'have {images.shape[-2]} x {images.shape[-1]}: resize them in the pipeline'
            )
        if self.space == 'reference':
            # The hue of a negative colour whose largest value is exactly 0, the mean of a channel, divides by it.
            return torch.stack([self.transform(image) for image in images]).nan_to_num_(nan=0.0)
        shift, scale = (0.0, 1.0) if mean is None or std is None else (mean.view(3, 1, 1), std.view(3, 1, 1))
        pixels = ((images * scale + shift) / FULL_SCALE).clamp(0, 1)
        jittered = torch.stack([self.transform(image) for image in pixels])
        return (jittered * FULL_SCALE - shift) / scale
