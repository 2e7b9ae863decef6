"""PriMaPs-EM: boosting unsupervised segmentation with principal mask proposals."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from omh_mmseg.models.data_preprocessor import bgr_bytes_by
from omh_mmseg.models.prediction.upsampling import Upsampling, arg_max
from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor
from omh_mmseg.models.utils.mask_proposals import assign_proposals
from omh_mmseg.models.utils.student_view import StudentView
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs, Inputs, pixels, single_view
from omh_mmseg.structures.host_step import HostStep
from omh_mmseg.utils.checks import SHARE, ranges
from omh_mmseg.utils.log import warn_once


@MODELS.register_module()
class PriMaPs(UnsupervisedSegmentor):
    """Fits prototypes alone, to masks that principal components cut out of the frozen features.

    E-step: each proposal gets the class that the momentum prototypes predict most often inside it. M-step: the running
    prototypes learn that class on a view of the image in another light. `PrototypeStartHook` says where they begin.

    Nothing else is trained: ``decode_head`` is an `IdentityHead`, or that of another host, whose checkpoint is named in
    ``load_from`` and whose centres the prototypes then begin from.

    Args:
        cluster_probe: Config of `MomentumPrototypes`.
        prototype_loss: Config of `ClassFrequencyLoss`.
        proposals: Config of `MaskProposals`.
        flip_prob: Probability of a horizontal flip of an image in a step.
        student_view: Options of `StudentView`.
        share_prototypes: OMH's level 1, where there is one, follows the momentum prototypes.
        **kwargs: See `UnsupervisedSegmentor`.

    Raises:
        ValueError: If losses of OMH would reach nothing but the frozen code, or prototypes cannot be shared.

    Source: Hahn et al., TMLR 2024; docs/methods/primaps.md.
    """

    TEACHES_CODE: ClassVar = False
    PROBE_METHODS: ClassVar = ('running', 'follow')
    PART_DEFAULTS: ClassVar = {**UnsupervisedSegmentor.PART_DEFAULTS, 'student_view': dict(type=StudentView)}

    @ranges(flip_prob=SHARE)
    def __init__(
        self,
        cluster_probe: dict[str, Any],
        prototype_loss: dict[str, Any],
        proposals: dict[str, Any],
        flip_prob: float = 0.5,
        student_view: dict[str, Any] | None = None,
        share_prototypes: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(cluster_probe=cluster_probe, **kwargs)
        self.prototype_loss = MODELS.build(prototype_loss)
        self.proposals = MODELS.build(proposals)
        self.flip_prob = flip_prob
        self.photometric_view = StudentView(**(student_view or {}))
        self.share_prototypes = share_prototypes
        if self.omh_head is None and not share_prototypes:
            raise ValueError('share_prototypes=False reaches nothing without an omh_head; leave it out.')
        levels = None if self.omh_head is None or not share_prototypes else self.omh_head.level_sizes
        if levels is not None and levels[0] != len(self.cluster_probe.centres):
            raise ValueError(
                f'level 1 of OMH has {levels[0]} clusters and is to follow {len(self.cluster_probe.centres)} '
                'prototypes: leave extra_clusters out, or set share_prototypes=False.'
            )
        self.after_losses()

    def host_losses(self, inputs: Inputs | dict[str, Inputs]) -> HostStep:
        """Loss of the running prototypes on images (B, 3, H, W); ValueError if there are several views."""
        images = single_view(inputs, type(self).__name__)
        # Due after the optimiser's step of the batch before.
        self.cluster_probe.follow(self.step)
        with torch.no_grad():
            code, student = map(self.decode_head, self._features(images))
        proposals = self._proposals(images)
        logits = self.cluster_probe.running(student)
        to = Upsampling.to(proposals.shape[-2:])
        classes = torch.cat([arg_max(one, to) for one in self.cluster_probe(code).split(1)])
        targets = assign_proposals(classes, proposals, logits.shape[1])
        return HostStep(dict(loss_prototypes=self.prototype_loss(logits, targets)), code, code)

    def after_losses(self) -> None:
        """OMH's level 1 follows, where it is shared."""
        if self.share_prototypes and self.omh_head is not None:
            self.share_prototypes_with_omh()

    @property
    def frozen_fields(self) -> dict[str, str]:
        """Features, those of the mirrored image, and the proposals."""
        mirrored = dict(mirrored='') if self.flip_prob > 0 else {}
        return dict(features='', **mirrored, proposals=self.proposals.settings)

    @property
    def frozen_types(self) -> dict[str, torch.dtype]:
        """Proposals are numbers."""
        return dict(proposals=torch.uint8)

    def freeze(self, images: Tensor) -> FrozenInputs:
        """Features and proposals."""
        features, size = self.backbone(images), (images.shape[-2], images.shape[-1])
        bgr = [] if self.proposals.crf is None else list(map(bgr_bytes_by(self.data_preprocessor), images))
        return FrozenInputs(features, size, extras=dict(proposals=self.proposals(features, size, bgr)))

    def _features(self, images: Inputs) -> tuple[Tensor, Tensor]:
        """Of the images and of their views; those of flipped ones are turned back, like everything that follows."""
        flips = (torch.rand(len(images)) < self.flip_prob).view(-1, 1, 1, 1)
        flips = flips.to(self.iteration.device, non_blocking=True)
        known = images if isinstance(images, FrozenInputs) else FrozenInputs(None, (0, 0), images=images)
        features, student = known.features, known.view

        def turned(maps: Tensor) -> Tensor:
            return torch.where(flips, maps.flip(-1), maps)

        if features is None or (known.mirrored is None and self.flip_prob > 0):
            features = turned(self.backbone(turned(pixels(known))))
        elif known.mirrored is not None:
            features = torch.where(flips, known.mirrored.flip(-1), features)
        return features, turned(self.backbone(self.jittered(turned(pixels(known))))) if student is None else student

    def _proposals(self, images: Inputs) -> Tensor:
        if isinstance(images, FrozenInputs) and 'proposals' in images.extras:
            return images.extras['proposals']
        warn_once(
            self,
            'mask proposals are made anew at each step; default_hooks.feature_cache keeps them: set its folder, and '
            "fields=['proposals'] where features take too much room",
        )
        return self.freeze(pixels(images)).extras['proposals']
