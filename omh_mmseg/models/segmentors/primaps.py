"""PriMaPs-EM: boosting unsupervised segmentation with principal mask proposals."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from torch import Tensor

from omh_mmseg.models.data_preprocessor import bgr_bytes_by
from omh_mmseg.models.prediction.code_maps import arg_max
from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor
from omh_mmseg.models.utils.mask_proposals import assign_proposals
from omh_mmseg.models.utils.student_view import StudentView
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs, Inputs, pixels, single_view
from omh_mmseg.structures.host_step import HostStep
from omh_mmseg.utils.checks import SHARE, ranges


@MODELS.register_module()
class PriMaPs(UnsupervisedSegmentor):
    """Fits prototypes alone, to masks that principal components cut out of the frozen features.

    E-step: each proposal gets the class that the momentum prototypes predict most often inside it. M-step: the running
    prototypes learn that class on a view of the image in another light. `PrototypeStartHook` says where they begin.

    Nothing else is trained: ``decode_head`` is an `IdentityHead`, or that of another host, whose checkpoint is named in
    ``load_from`` and whose centres the prototypes then begin from. OMH sees a code that no loss can move; it is refused
    with losses that reach the code alone.

    Args:
        cluster_probe: Config of `MomentumPrototypes`.
        prototype_loss: Config of `ClassFrequencyLoss`.
        proposals: Config of `MaskProposals`.
        flip_prob: Probability of a horizontal flip of an image in a step.
        student_view: Options of `StudentView`.
        share_prototypes: OMH's level 1, where there is one, follows the momentum prototypes in place of a clustering of
            its own.
        **kwargs: See `UnsupervisedSegmentor`.

    Raises:
        ValueError: If OMH's losses would reach nothing, or prototypes cannot be shared.

    Source: Hahn et al., Boosting Unsupervised Semantic Segmentation with Principal Mask Proposals, TMLR 2024;
    docs/methods/primaps.md.
    """

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
        self.student_view = StudentView(**(student_view or {}))
        self.share_prototypes = share_prototypes
        self.decode_head.requires_grad_(False)
        self._warned = False
        self._check_omh()
        self._share_prototypes()

    def host_losses(self, inputs: Inputs | dict[str, Inputs]) -> HostStep:
        """Loss of the running prototypes on images (B, 3, H, W).

        Raises:
            ValueError: If the batch holds several views.
        """
        images = single_view(inputs, type(self).__name__)
        # Due after the optimiser's step of the batch before.
        self.cluster_probe.follow(self.step)
        drawn = (torch.rand(len(images)) < self.flip_prob).view(-1, 1, 1, 1)
        flips = drawn.to(self.iteration.device, non_blocking=True)
        with torch.no_grad():
            code, student = (self.decode_head(maps) for maps in self._features(images, flips))
        proposals = self._proposals(images)
        classes = self._classes(self.cluster_probe.scores(code), proposals.shape[-2:])
        logits = self.cluster_probe.running(student)
        targets = assign_proposals(classes, proposals, logits.shape[1])
        return HostStep(dict(loss_prototypes=self.prototype_loss(logits, targets)), code, code)

    def after_losses(self) -> None:
        """OMH's level 1 follows, where it is shared."""
        self._share_prototypes()

    def begin_run(self) -> None:
        """As every host; the prototypes stay, and their updates count from 0."""
        super().begin_run()
        self.cluster_probe.begin_run()

    def train(self, mode: bool = True) -> PriMaPs:
        """The frozen head drops no channels in training."""
        super().train(mode)
        self.decode_head.eval()
        return self

    @property
    def frozen_fields(self) -> dict[str, str]:
        """Features, those of the mirrored image, and the proposals."""
        mirrored = dict(mirrored='') if self.flip_prob > 0 else {}
        return dict(features='', **mirrored, proposals=self.proposals.settings)

    @property
    def frozen_types(self) -> dict[str, torch.dtype]:
        """Proposals are numbers."""
        return dict(proposals=torch.uint8)

    @property
    def trains_on_images(self) -> bool:
        """For the view in another light, where it is not cached."""
        return True

    @property
    def jitter_settings(self) -> str:
        """Of that view."""
        return self.student_view.settings

    def jittered(self, images: Tensor) -> Tensor:
        """See `StudentView`."""
        preprocessor = self.data_preprocessor
        return self.student_view(images, getattr(preprocessor, 'mean', None), getattr(preprocessor, 'std', None))

    def freeze(self, images: Tensor) -> FrozenInputs:
        """Features and proposals."""
        features, size = self.backbone(images), (images.shape[-2], images.shape[-1])
        bgr = [] if self.proposals.crf is None else list(map(bgr_bytes_by(self.data_preprocessor), images))
        return FrozenInputs(features, size, extras=dict(proposals=self.proposals(features, size, bgr)))

    def _features(self, images: Inputs, flips: Tensor) -> tuple[Tensor, Tensor]:
        """Of the images and of their views, flipped and turned back where ``flips`` (B, 1, 1, 1) say so."""

        def turned(maps: Tensor) -> Tensor:
            return torch.where(flips, maps.flip(-1), maps)

        known = images if isinstance(images, FrozenInputs) else None
        flipped = None if known is not None and known.view is not None else turned(pixels(images))
        if known is None or known.features is None or (self.flip_prob > 0 and known.mirrored is None):
            features = turned(self.backbone(turned(pixels(images))))
        else:
            features = known.features
            if known.mirrored is not None:
                features = torch.where(flips, known.mirrored.flip(-1), features)
        if flipped is None:
            # A cached view is of the image as it is.
            return features, known.view  # type: ignore[union-attr, return-value]
        return features, turned(self.backbone(self.jittered(flipped)))

    def _proposals(self, images: Inputs) -> Tensor:
        if isinstance(images, FrozenInputs) and 'proposals' in images.extras:
            return images.extras['proposals']
        if not self._warned:
            self._warned = True
            MMLogger.get_current_instance().warning(
                'mask proposals are computed anew at each step. A feature cache keeps them: set '
                "default_hooks.feature_cache.folder, and fields=['proposals'] there where features take too much room"
            )
        return self.freeze(pixels(images)).extras['proposals']

    def _classes(self, scores: Tensor, size: torch.Size) -> Tensor:
        """Class (B, H, W) of each pixel from scores (B, K, h, w)."""
        resize = partial(F.interpolate, size=tuple(size), mode='bilinear', align_corners=False)
        return torch.cat([arg_max(one, resize, size[0] * size[1]) for one in scores.split(1)])

    def _check_omh(self) -> None:
        head = self.omh_head
        losses = head is not None and (head.match is not None or head.cluster is not None)
        if losses and (head.reach.scales_gradients or not head.rule.joint):
            raise ValueError(
                'the losses of OMH reach the features, which are frozen here: set omh_head.match=None and cluster=None,'
                " or let them move centres, with centres=dict(type='JointCentres') and reach=dict(type='FixedWeight')."
            )
        clusters = len(self.cluster_probe.centres)
        if self.share_prototypes and head is not None and head.level_sizes[0] != clusters:
            raise ValueError(
                f'share_prototypes=True needs {clusters} clusters in level 1 of OMH, as there are prototypes; got '
                f'{head.level_sizes[0]}. Set share_prototypes=False, or leave extra_clusters out.'
            )

    def _share_prototypes(self) -> None:
        if self.share_prototypes and self.omh_head is not None:
            self.omh_head.follow_coarsest(self.cluster_probe.centres)
