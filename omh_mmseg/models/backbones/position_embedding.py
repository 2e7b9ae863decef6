"""Positional embeddings at other sizes than the pretraining's, by DINO's rule (docs/methods/features.md 1.5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.models.backbones.token_grid import token_grid
from omh_mmseg.utils.precision import widened

DINO_OFFSET = 0.1


def dino_position_embedding(embedding: Tensor, native: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Resize the patch part of a positional embedding as DINO does.

    The bicubic resize is given the scale factor (n + 0.1) / n_native of each axis, n being its tokens, and maps
    coordinates with that very factor instead of with n / n_native. Tokens before the patches stay as they are, and so
    does everything at the native grid.

    Args:
        embedding: (1, e + n_native, C): e tokens such as CLS, then the patches of the native grid, row by row.
        native: Rows and columns of the native grid.
        grid: Rows and columns wanted.

    Returns:
        (1, e + n, C), of the embedding's dtype; resized in float32 where that is wider.

    Raises:
        ValueError: If the embedding has fewer tokens than the native grid.

    Source: docs/methods/features.md 1.5.
    """
    if grid == native:
        return embedding
    extra = embedding.shape[1] - native[0] * native[1]
    if extra < 0:
        raise ValueError(f'An embedding of {embedding.shape[1]} tokens has no patch part of {native[0]}x{native[1]}.')
    patches = widened(embedding[:, extra:]).unflatten(1, native).permute(0, 3, 1, 2)  # (1, C, h_native, w_native)
    factors = [(wanted + DINO_OFFSET) / had for wanted, had in zip(grid, native)]
    resized = F.interpolate(
        patches, scale_factor=factors, mode='bicubic', align_corners=False, recompute_scale_factor=False
    )
    return torch.cat([embedding[:, :extra], resized.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1)


def require_position_embedding(backbone: nn.Module) -> None:
    """Raise ValueError for a backbone without the absolute embedding that DINO's rule resizes."""
    embedding = getattr(backbone, 'pos_embed', None)
    native = getattr(backbone, 'patch_resolution', None)
    if (
        not isinstance(embedding, nn.Parameter)
        or embedding.dim() != 3
        or not isinstance(native, tuple)
        or not hasattr(getattr(backbone, 'patch_embed', None), 'projection')
    ):
        raise ValueError(
            f"position_interpolation='dino' resizes the positional embedding of mmpretrain.VisionTransformer and its "
            f"kin, and {type(backbone).__name__} has none. Leave position_interpolation out, or set it to 'size'."
        )


@contextmanager
def dino_positions(backbone: Any, images: Tensor) -> Iterator[None]:
    """Let a vision transformer of mmpretrain see, inside the block, the embedding that DINO has for these images.

    Its forward pass resizes ``pos_embed`` from ``patch_resolution`` to the grid of the images, by target size. With
    both exchanged for the resized embedding and its grid, it finds nothing to do. The stored weights stay untouched,
    so that loading, moving and casting them need no care. The resize costs below 1 % of the forward pass of one image.
    """
    native, grid = tuple(backbone.patch_resolution), token_grid(backbone.patch_embed, images.shape[-2:])
    if grid == native:
        yield
        return
    stored = backbone.pos_embed
    resized = dino_position_embedding(stored.detach(), native, grid)
    backbone.pos_embed, backbone.patch_resolution = nn.Parameter(resized, requires_grad=False), grid
    try:
        yield
    finally:
        backbone.pos_embed, backbone.patch_resolution = stored, native
