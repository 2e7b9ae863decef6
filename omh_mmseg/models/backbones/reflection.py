"""A frame of mirrored pixels round the image, which takes the backbone's padding away from what is used of its maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.models.backbones.taps import BackboneTaps
from omh_mmseg.models.backbones.token_grid import TokenLayout, token_grid


def reflected(images: Tensor, pixels: int) -> Tensor:
    """Images (B, C, H, W) with so many mirrored pixels on each side.

    Raises:
        ValueError: If a side has no so many pixels to mirror.
    """
    if min(images.shape[-2:]) <= pixels:
        height, width = images.shape[-2:]
        raise ValueError(
            f'{pixels} pixels on each side cannot be mirrored in images of {height}x{width}; give larger images, or '
            'lower model.backbone.reflect_padding.'
        )
    return F.pad(images, [pixels] * 4, mode='reflect')


def inside(taps: BackboneTaps, images: Tensor, pixels: int, layout: TokenLayout | None) -> BackboneTaps:
    """What belongs to the image inside the frame.

    Args:
        taps: Of the images with their frame.
        images: These, (B, C, H, W).
        pixels: Of the frame, on each side.
        layout: Of the backbone's tokens, where the taps have attention.

    Raises:
        ValueError: If the frame is no whole number of positions.
    """
    features, keys, attention = taps
    height = images.shape[-2]
    if attention is not None and layout is not None:
        grid = token_grid(layout.patch_embed, images.shape[-2:])
        attention = _inner_attention(attention, layout.extra, grid, pixels * grid[0] // height)
    return BackboneTaps(
        _inner(features, pixels, height), None if keys is None else _inner(keys, pixels, height), attention
    )


def _inner(maps: Tensor, pixels: int, height: int) -> Tensor:
    positions, rest = divmod(pixels * maps.shape[-2], height)
    if rest:
        raise ValueError(
            f'a frame of {pixels} pixels is no whole number of positions of a map of {maps.shape[-2]} rows over '
            f'{height} pixels, so that it cannot be cut off again; set model.backbone.reflect_padding=0.'
        )
    return maps[..., positions:-positions, positions:-positions]


def _inner_attention(attention: Tensor, extra: int, grid: tuple[int, int], rows: int) -> Tensor:
    """As if the tokens of the frame were masked: the rows (..., e + m) of those inside sum to 1 again."""
    tokens = torch.arange(grid[0] * grid[1], device=attention.device).reshape(grid)
    patches = extra + tokens[rows:-rows, rows:-rows].flatten()
    kept = torch.cat([torch.arange(extra, device=attention.device), patches])
    attention = attention.index_select(-1, kept).index_select(-2, kept)
    return attention / attention.sum(-1, keepdim=True)
