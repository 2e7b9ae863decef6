"""The grid of tokens that a patch embedding makes of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def token_grid(patch_embed: Any, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of tokens of an image.

    Args:
        patch_embed: A ``PatchEmbed`` of mmcv, which pads images that are no multiple of the patch.
        size: Height and width of the image in pixels.
    """
    height, width = size
    padding = getattr(patch_embed, 'adaptive_padding', None)
    if padding is not None:
        more_height, more_width = padding.get_pad_shape((height, width))
        height, width = height + more_height, width + more_width
    projection = patch_embed.projection
    rows, columns = (
        (side + 2 * projection.padding[axis] - projection.dilation[axis] * (projection.kernel_size[axis] - 1) - 1)
        // projection.stride[axis]
        + 1
        for axis, side in enumerate((height, width))
    )
    return rows, columns
