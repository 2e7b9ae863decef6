"""Keys and attention of a vision transformer's last block, caught in the forward pass that makes its features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

from omh_mmseg.models.backbones.token_grid import token_grid


def last_attention(backbone: nn.Module) -> MultiheadAttention | None:
    """The attention of the last block, where it is a plain softmax of scaled products, whose parts can be caught.

    The relatives of mmpretrain's transformer that rotate their queries (EVA-02) or add position biases (BEiT) have
    attention modules of their own, and so have no plain one.
    """
    layers = getattr(backbone, 'layers', None)
    block = layers[-1] if isinstance(layers, nn.ModuleList | nn.Sequential) and len(layers) else None
    attention = getattr(block, 'attn', None)
    has_grid = hasattr(getattr(backbone, 'patch_embed', None), 'projection')
    return attention if isinstance(attention, MultiheadAttention) and has_grid else None


@contextmanager
def caught_projection(attention: MultiheadAttention) -> Iterator[list[Tensor]]:
    """Collect what the projection to queries, keys and values puts out inside the block, (B, e + n, 3 C) each."""
    caught: list[Tensor] = []
    hook = attention.qkv.register_forward_hook(lambda _module, _inputs, output: caught.append(output.detach()))
    try:
        yield caught
    finally:
        hook.remove()


def key_map(projected: Tensor, backbone: Any, images: Tensor) -> Tensor:
    """Keys of the patches with the heads concatenated, (B, C, h, w), of the projection (B, e + n, 3 C)."""
    rows, columns = token_grid(backbone.patch_embed, images.shape[-2:])
    keys = projected.chunk(3, dim=-1)[1][:, backbone.num_extra_tokens :]
    return keys.transpose(1, 2).unflatten(2, (rows, columns))


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
        wide = projected.to(torch.promote_types(projected.dtype, torch.float32))
        queries, keys, _ = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in wide.chunk(3, dim=-1))
        queries = queries * queries.shape[-1] ** -0.5  # (B, H, N, C / H)
        keys = keys.transpose(-1, -2)
        if not mean:
            return torch.softmax(queries @ keys, dim=-1)
        total = torch.softmax(queries[:, 0] @ keys[:, 0], dim=-1)
        for head in range(1, heads):
            total += torch.softmax(queries[:, head] @ keys[:, head], dim=-1)
        return total / heads
