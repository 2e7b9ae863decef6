"""What a cache holds of an image: the part of a model that is frozen, and what its results depend on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from omh_mmseg.structures.frozen_inputs import FrozenInputs

FEATURES, WEIGHTS, MIRRORED = 'features', 'weights', 'mirrored'


@dataclass
class FrozenPart:
    """What is computed from images, and all that it depends on.

    Attributes:
        backbone: Built, with its weights.
        backbone_cfg: Its config.
        preprocessor: Of the model, on the device to compute on.
        freeze: From normalised images (B, 3, H, W) to what is frozen of them.
        settings: By the further fields that ``freeze`` gives, what these depend on beside the backbone.
    """

    backbone: nn.Module
    backbone_cfg: Mapping[str, Any]
    preprocessor: nn.Module
    freeze: Callable[[Tensor], FrozenInputs]
    settings: Mapping[str, str] = field(default_factory=dict)

    @torch.no_grad()
    def compute(
        self, images: Sequence[Tensor], names: Collection[str], training: bool
    ) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Fields of images, those of one size in one forward pass.

        Args:
            images: As the data set delivers them, (3, H, W) each.
            names: Which fields: ``'features'``, ``'weights'`` and ``'mirrored'``, the features of the mirror image.
            training: Whether images are padded as in training.

        Yields:
            Per size the numbers of its B images, and their fields (B, ...) on the preprocessor's device.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            by_size.setdefault(tuple(image.shape), []).append(number)
        for numbers in by_size.values():
            inputs = self.preprocessor(dict(inputs=[images[number] for number in numbers]), training)['inputs']
            frozen = self.freeze(inputs)
            fields = {name: getattr(frozen, name) for name in (FEATURES, WEIGHTS) if name in names}
            if MIRRORED in names:
                fields[MIRRORED] = self.backbone(inputs.flip(-1))
            yield numbers, fields


def features_alone(backbone: nn.Module) -> Callable[[Tensor], FrozenInputs]:
    """A `FrozenPart.freeze` that gives features and nothing else."""
    return lambda images: FrozenInputs(backbone(images), size=(images.shape[-2], images.shape[-1]))
