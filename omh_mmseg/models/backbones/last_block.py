"""Keys and attention of a vision transformer's last blocks, caught in the forward pass that makes its features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

from omh_mmseg.models.backbones.token_grid import BLOCK_LISTS, token_grid, token_layout
from omh_mmseg.utils.precision import widened


def plain_attention(backbone: nn.Module, block: int = -1) -> Any:
    """The attention of a block, where it is a plain softmax of scaled products, whose parts can be caught.

    The relatives of mmpretrain's transformer that rotate their queries (EVA-02) or add position biases (BEiT) have
    attention modules of their own, and so have no plain one; timm's may also normalise queries and keys.

    Args:
        backbone: The transformer.
        block: Number of the block; the last one is -1.

    Returns:
        A module with ``qkv`` and ``num_heads``, or None.

    Raises:
        ValueError: If there is no block of this number.
    """
    layout = token_layout(backbone)
    if layout is None:
        return None
    lists = (getattr(layout.transformer, name, None) for name in BLOCK_LISTS)
    layers = next(blocks for blocks in lists if isinstance(blocks, nn.ModuleList | nn.Sequential))
    if not -len(layers) <= block < len(layers):
        raise ValueError(
            f'out_indices asks for the keys of block {block}, and {type(backbone).__name__} has {len(layers)} blocks.'
        )
    attention = getattr(layers[block], 'attn', None)
    return attention if isinstance(attention, MultiheadAttention) or _is_plain_timm(attention) else None


def _is_plain_timm(attention: Any) -> bool:
    try:
        from timm.layers import Attention
    except ImportError:
        return False
    norms = (getattr(attention, name, None) for name in ('q_norm', 'k_norm'))
    # Subclasses add rotations or biases.
    return type(attention) is Attention and all(isinstance(norm, nn.Identity) for norm in norms)


@contextmanager
def caught_projection(attention: Any) -> Iterator[list[Tensor]]:
    """Collect what the projection to queries, keys and values puts out inside the block, (B, e + n, 3 C) each."""
    caught: list[Tensor] = []
    hook = attention.qkv.register_forward_hook(lambda _module, _inputs, output: caught.append(output.detach()))
    try:
        yield caught
    finally:
        hook.remove()


def key_map(projected: Tensor, backbone: nn.Module, images: Tensor) -> Tensor:
    """Keys of the patches with the heads concatenated, (B, C, h, w), of the projection (B, e + n, 3 C)."""
    return patch_map(projected.chunk(3, dim=-1)[1], backbone, images)


def patch_map(tokens: Tensor, backbone: nn.Module, images: Tensor) -> Tensor:
    """The patches among the tokens (B, e + n, C) of a transformer as a map (B, C, h, w)."""
    layout = token_layout(backbone)
    assert layout is not None
    grid = token_grid(layout.patch_embed, images.shape[-2:])
    return tokens[:, layout.extra :].transpose(1, 2).unflatten(2, grid)


def attention_maps(projected: Tensor, heads: int, mean: bool) -> Tensor:
    """Attention after the softmax, in float32 at least, of the projection (B, N, 3 C).

    Args:
        projected: Queries, keys and values, each with its heads one after the other.
        heads: Their number H.
        mean: Average over the heads, one head at a time, instead of keeping them.

    Returns:
        (B, N, N) with ``mean``, else (B, H, N, N); rows are queries and sum to 1.
    """
    with torch.autocast(projected.device.type, enabled=False):
        wide = widened(projected)
        queries, keys, _ = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in wide.chunk(3, dim=-1))
        queries = queries * queries.shape[-1] ** -0.5  # (B, H, N, C / H)
        keys = keys.transpose(-1, -2)
        if not mean:
            return torch.softmax(queries @ keys, dim=-1)
        total = torch.softmax(queries[:, 0] @ keys[:, 0], dim=-1)
        for head in range(1, heads):
            total += torch.softmax(queries[:, head] @ keys[:, head], dim=-1)
        return total / heads
