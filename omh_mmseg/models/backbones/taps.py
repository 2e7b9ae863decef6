"""What a frozen backbone gives of images."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class BackboneTaps(NamedTuple):
    """What one forward pass of a `FrozenBackbone` gives; what was not asked for is None.

    Attributes:
        features: The feature map (B, C, h, w).
        keys: Keys of the last block without its extra tokens, heads concatenated in their order, (B, C, h, w).
        attention: Attention of the last block after the softmax, with its ``num_extra_tokens`` (CLS) first: per head,
            (B, H, e + n, e + n), or its mean over the heads, (B, e + n, e + n). Rows are queries.
    """

    features: Tensor
    keys: Tensor | None
    attention: Tensor | None
