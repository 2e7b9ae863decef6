"""What a cache holds of an image: the part of a model that is frozen, and what its results depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from omh_mmseg.structures.frozen_inputs import FrozenInputs
from omh_mmseg.utils.generators import seeded

FEATURES, MIRRORED, VIEW = 'features', 'mirrored', 'view'


@dataclass(frozen=True)
class JitteredViews:
    """A few jittered views of each image, drawn once, which stand for a fresh one in each step.

    Attributes:
        draw: From normalised images (B, 3, H, W) to a view of them, by draws from torch's generator.
        settings: What ``draw`` depends on.
        count: Views of an image.
        seed: Of the draws; view v of item i is drawn from seed, i and v alone.
    """

    draw: Callable[[Tensor], Tensor]
    settings: str
    count: int
    seed: int = 0

    @property
    def names(self) -> dict[str, str]:
        """Fields, one for each view, and what tells them from those of other settings."""
        digest = hashlib.sha256(self.settings.encode()).hexdigest()[:8]
        return {f'{VIEW}{number}': f'seed{self.seed}-{digest}' for number in range(1, self.count + 1)}

    def view(self, images: Tensor, items: Sequence[int], name: str) -> Tensor:
        """View (B, 3, H, W) of the images (B, 3, H, W) of so many items that the field of this name is made of."""
        views = []
        for image, item in zip(images.split(1), items, strict=True):
            with seeded(VIEW, self.seed, item, int(name.removeprefix(VIEW))):
                views.append(self.draw(image))
        return torch.cat(views)


@dataclass
class FrozenPart:
    """What is computed from images, and all that it depends on.

    Attributes:
        backbone: Built, with its weights.
        backbone_cfg: Its config.
        preprocessor: Of the model, on the device to compute on.
        freeze: From normalised images (B, 3, H, W) to what is frozen of them.
        settings: By the fields that ``freeze`` gives, what these depend on beside the backbone.
        types: Of those that are not kept in the type of the features.
        views: Jittered views whose features are cached as well; None for none.
    """

    backbone: nn.Module
    backbone_cfg: Mapping[str, Any]
    preprocessor: nn.Module
    freeze: Callable[[Tensor], FrozenInputs]
    settings: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, torch.dtype] = field(default_factory=dict)
    views: JitteredViews | None = None

    def setting(self, name: str) -> str:
        """What a field depends on beside the backbone."""
        names = {} if self.views is None else self.views.names
        return names.get(name) or self.settings.get(name, '')

    @torch.no_grad()
    def compute(
        self, images: Sequence[Tensor], names: Collection[str], training: bool, first: int = 0
    ) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Fields of images, those of one size in one forward pass.

        Args:
            images: As the data set delivers them, (3, H, W) each.
            names: Which fields: ``'features'``, ``'mirrored'``, the features of the mirror image, further ones that
                ``freeze`` gives, and those of the views.
            training: Whether images are padded as in training.
            first: Number of the first image in the data set.

        Yields:
            Per size the numbers of its B images, and their fields (B, ...) on the preprocessor's device.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            by_size.setdefault(tuple(image.shape), []).append(number)
        for numbers in by_size.values():
            inputs = self.preprocessor(dict(inputs=[images[number] for number in numbers]), training)['inputs']
            fields: dict[str, Any] = {}
            given = [name for name in {FEATURES, *self.settings} if name in names and name != MIRRORED]
            if given:
                frozen = self.freeze(inputs)
                fields = {name: frozen.extras.get(name, getattr(frozen, name, None)) for name in given}
            if MIRRORED in names:
                fields[MIRRORED] = self.backbone(inputs.flip(-1))
            if self.views is not None:
                items = [first + number for number in numbers]
                for name in self.views.names:
                    if name in names:
                        fields[name] = self.backbone(self.views.view(inputs, items, name))
            yield numbers, fields


def features_alone(backbone: nn.Module) -> Callable[[Tensor], FrozenInputs]:
    """A `FrozenPart.freeze` that gives features and nothing else."""
    return lambda images: FrozenInputs(backbone(images), size=(images.shape[-2], images.shape[-1]))
