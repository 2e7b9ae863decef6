"""The tokens of a vision transformer: the grid of its patches, and those before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

BLOCK_LISTS = ('layers', 'blocks')
"""Where mmpretrain and timm keep the blocks of a transformer without stages."""


class TokenLayout(NamedTuple):
    """How a transformer makes tokens of an image.

    Attributes:
        patch_embed: Its patch embedding, of mmcv or timm.
        extra: Tokens before those of the patches: CLS, registers.
        transformer: The module that has the blocks; inside the wrapper for timm's models.
    """

    patch_embed: nn.Module
    extra: int
    transformer: nn.Module


def token_layout(backbone: nn.Module) -> TokenLayout | None:
    """The layout of a vision transformer of mmpretrain or, through either wrapper, of timm; None for other modules."""
    wrapped: Any = getattr(backbone, 'timm_model', backbone)
    # timm's models with features_only=True are one module further in.
    wrapped = getattr(wrapped, 'model', wrapped)
    patch_embed = getattr(wrapped, 'patch_embed', None)
    if not any(isinstance(getattr(wrapped, name, None), nn.ModuleList | nn.Sequential) for name in BLOCK_LISTS):
        return None
    for count in ('num_extra_tokens', 'num_prefix_tokens'):
        extra = getattr(wrapped, count, None)
        if isinstance(extra, int) and isinstance(patch_embed, nn.Module) and _projection(patch_embed) is not None:
            return TokenLayout(patch_embed, extra + getattr(wrapped, 'num_registers', 0), wrapped)
    return None


def token_grid(patch_embed: Any, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of tokens of an image.

    Args:
        patch_embed: A ``PatchEmbed`` of mmcv, which pads images that are no multiple of the patch, or of timm.
        size: Height and width of the image in pixels.
    """
    height, width = size
    padding = getattr(patch_embed, 'adaptive_padding', None)
    if padding is not None:
        more_height, more_width = padding.get_pad_shape((height, width))
        height, width = height + more_height, width + more_width
    projection = _projection(patch_embed)
    rows, columns = (
        (side + 2 * projection.padding[axis] - projection.dilation[axis] * (projection.kernel_size[axis] - 1) - 1)
        // projection.stride[axis]
        + 1
        for axis, side in enumerate((height, width))
    )
    return rows, columns


def patch_size(patch_embed: Any) -> int:
    """Distance of two patches in pixels; the larger one, should rows and columns differ."""
    return max(_projection(patch_embed).stride)


def _projection(patch_embed: Any) -> Any:
    return getattr(patch_embed, 'projection', None) or getattr(patch_embed, 'proj', None)
