"""The directions that nearest neighbours are searched among."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from omh_mmseg.structures.frozen_inputs import Inputs


@torch.no_grad()
def pooled_features(
    backbone: Callable[[Inputs], Tensor],
    batches: Iterable[Inputs],
    first_item: int = 0,
    train_mode_dropout: float = 0.0,
    seed: int = 0,
) -> Iterator[Tensor]:
    """One direction per image: the global average of the feature map, L2-normalised (docs/methods/data.md 5.7).

    Args:
        backbone: From images (B, 3, H, W) to features (B, C, h, w), in eval mode.
        batches: Normalised images (B, 3, H, W) on the backbone's device, or what is frozen of them.
        first_item: Number of the first image; an interrupted computation goes on from there.
        train_mode_dropout: Channel dropout of the features, as the reference's index has it with 0.1 because its
            featurizer is left in train mode (docs/methods/features.md 1.6, docs/methods/data.md 5.7); 0 for none. See
            :func:`channel_masks`.
        seed: Of the masks.

    Yields:
        float32 (B, C) on the CPU, per batch.

    Raises:
        ValueError: A feature that is not finite, or a probability outside [0, 1).
    """
    for images in batches:
        pooled = backbone(images).float().mean(dim=(2, 3))
        if train_mode_dropout:
            # A whole channel is kept or dropped, so that masking the average is masking the map.
            masks = channel_masks(first_item, len(pooled), pooled.shape[1], train_mode_dropout, seed)
            pooled = pooled * masks.to(pooled.device)
        features = nn.functional.normalize(pooled, dim=1).cpu()
        bad = (~torch.isfinite(features).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f'the backbone gives features that are not finite, first for item {first_item + bad[0]}')
        first_item += len(images)
        yield features


def channel_masks(first_item: int, items: int, channels: int, probability: float, seed: int) -> Tensor:
    """Masks of channel dropout that depend on seed and item alone, not on batches and interruptions.

    Args:
        first_item: Number of the first item.
        items: B.
        channels: C.
        probability: Of dropping a channel, in [0, 1).
        seed: At least 0.

    Returns:
        float32 (B, C): 0 with ``probability``, else 1 / (1 - probability).
    """
    if not 0 <= probability < 1:
        raise ValueError(f'the probability of channel dropout must lie in [0, 1), got {probability}')
    generator = torch.Generator()
    rows = []
    for item in range(first_item, first_item + items):
        # torch's generator looks at 32 bits of its seed alone.
        generator.manual_seed(int(np.random.SeedSequence((seed, item)).generate_state(1)[0]))
        rows.append(torch.rand(channels, generator=generator) >= probability)
    return torch.stack(rows).float() / (1 - probability)
