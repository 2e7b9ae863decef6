"""What a model takes in place of images whose frozen features are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from omh_mmseg.structures.temporal import LATER


@dataclass
class FrozenItem:
    """One image of a cached data set, as its ``inputs``.

    Attributes:
        features: Frozen features (C, h, w) of the image, padded as in a batch of its own; None where they are computed
            from the image.
        size: Height and width of the image in pixels, without padding.
        extras: What else the host has frozen of it, by the names of its ``frozen_fields``.
        mirrored: Features (C, h, w) of the mirrored image, where asked for.
        view: Features (C, h, w) of one of the image's jittered views, where they are cached.
        image: The image itself, uint8 (3, H, W), where a step needs it as well.
    """

    features: Tensor | None
    size: tuple[int, int]
    extras: dict[str, Tensor] = field(default_factory=dict)
    mirrored: Tensor | None = None
    view: Tensor | None = None
    image: Tensor | None = None

    def pin_memory(self) -> FrozenItem:
        """The same in pinned memory; torch's loaders call this."""
        pinned: dict[str, Any] = {
            name: value.pin_memory() for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, extras={name: value.pin_memory() for name, value in self.extras.items()}, **pinned)


@dataclass
class FrozenInputs:
    """A batch of images, of which the backbone's part is done; stands wherever a segmentor takes images.

    Attributes:
        features: (B, C, h, w); None where they are computed from the images.
        size: H and W of the batch in pixels, padding included.
        extras: (B, ...) each, see `FrozenItem`.
        mirrored: (B, C, h, w), features of the mirrored and padded images, not turned back.
        view: (B, C, h, w), features of a jittered view of each image, see `FrozenItem`.
        images: Normalised and padded images (B, 3, H, W), where a step needs them as well.
    """

    features: Tensor | None
    size: tuple[int, int]
    extras: dict[str, Tensor] = field(default_factory=dict)
    mirrored: Tensor | None = None
    view: Tensor | None = None
    images: Tensor | None = None

    def __len__(self) -> int:
        return len(pixels(self) if self.features is None else self.features)

    @property
    def shape(self) -> torch.Size:
        """That of the images, (B, 3, H, W)."""
        return torch.Size((len(self), 3, *self.size))

    def extra(self, name: str, host: str) -> Tensor:
        """One of the extras.

        Raises:
            ValueError: It is not there.
        """
        if name not in self.extras:
            raise ValueError(f'{host} trains on cached features with {name}, which is not there; cache it as well')
        return self.extras[name]

    def flip(self, dims: int | Sequence[int]) -> FrozenInputs:
        """The mirrored images.

        Raises:
            ValueError: The features of that flip are not there.
        """
        dims = (dims,) if isinstance(dims, int) else tuple(dims)
        if self.mirrored is None or dims != (-1,):
            raise ValueError(
                f'the features of images flipped along {dims} are not cached; predict with test_cfg.flip=False, or '
                'without the feature cache'
            )
        images = None if self.images is None else self.images.flip(-1)
        return FrozenInputs(self.mirrored, self.size, mirrored=self.features, images=images)


Inputs: TypeAlias = Tensor | FrozenInputs


def joined(views: Sequence[Inputs]) -> Inputs:
    """Batches (B, 3, H, W) one after the other, images or frozen inputs."""
    frozen = [view for view in views if isinstance(view, FrozenInputs)]
    images = [view for view in views if isinstance(view, Tensor)]
    if not frozen:
        return torch.cat(images)
    if images or len({view.size for view in frozen}) > 1:
        raise ValueError(f'views of several kinds or sizes cannot be joined: {[tuple(view.shape) for view in views]}')
    held = [view.extras | vars(view) for view in frozen]
    parts = {
        name: torch.cat([view[name] for view in held])
        for name in held[0]
        if all(isinstance(view.get(name), Tensor) for view in held)
    }
    extras = {name: parts.pop(name) for name in frozen[0].extras if name in parts}
    return FrozenInputs(parts.pop('features', None), frozen[0].size, extras, **parts)


def pixels(inputs: Inputs) -> Tensor:
    """The normalised images (B, 3, H, W) of a batch.

    Raises:
        ValueError: Only their features are there.
    """
    if isinstance(inputs, Tensor):
        return inputs
    if inputs.images is None:
        raise ValueError(
            'this step needs the images themselves, and only their cached features are there; run it without the '
            'feature cache, or set what needs them (CRF, photometric view) before the run starts'
        )
    return inputs.images


def single_view(inputs: Inputs | dict[str, Inputs], host: str) -> Inputs:
    """The images of a batch of one view; a later frame beside them is the temporal term's.

    Raises:
        ValueError: If there are several views.
    """
    if isinstance(inputs, dict) and set(inputs) == {'anchor', LATER}:
        return inputs['anchor']
    if isinstance(inputs, dict):
        raise ValueError(
            f'{host} trains on single images and got the views {sorted(inputs)}. '
            "Take the wrapper dict(type='NeighbourPairs', ...) off the train data set."
        )
    return inputs
