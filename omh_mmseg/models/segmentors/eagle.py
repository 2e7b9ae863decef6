"""EAGLE: eigen aggregation learning for object-centric unsupervised semantic segmentation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.models.decode_heads.probes import ClusterProbe
from omh_mmseg.models.losses.eigen_cue import small_colours
from omh_mmseg.models.losses.object_contrast_loss import patch_weights
from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor
from omh_mmseg.models.utils.photometric_view import PhotometricView
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs, Inputs, pixels, single_view
from omh_mmseg.structures.host_step import HostStep
from omh_mmseg.utils.checks import SHARE, STEPS, ranges

BLUR = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, grayscale=0.0, blur=0.5, blur_size=3)


@MODELS.register_module()
class EAGLE(UnsupervisedSegmentor):
    """Correspondences first; then codes are drawn to the medoids of cues, which the eigenvectors of each image give.

    A cue is the number of the learned direction that is nearest to a position's entries in the eigenvectors; there are
    as many as the cluster probe has clusters. The loss switches from correspondences to cues after ``switch_step``.

    Args:
        correspondence_loss: Config of `AdaptiveCorrespondenceLoss`.
        object_loss: Config of `ObjectContrastLoss`.
        eigen_cue: Config of `EigenCue`.
        switch_step: The last step with u = 0; steps are counted from 0.
        object_share: u afterwards: the cues count u, the correspondences 1 - u.
        photometric_view: Keywords of `PhotometricView`, of the second view. By default a blur of 3 x 3 pixels of every
            second image.
        **kwargs: See `UnsupervisedSegmentor`.

    Source: Kim et al., EAGLE: Eigen Aggregation Learning for Object-Centric Unsupervised Semantic Segmentation, CVPR
    2024; docs/methods/eagle.md.
    """

    PART_DEFAULTS: ClassVar = {**UnsupervisedSegmentor.PART_DEFAULTS, 'photometric_view': dict(type=PhotometricView)}

    @ranges(switch_step=STEPS, object_share=SHARE)
    def __init__(
        self,
        correspondence_loss: dict[str, Any],
        object_loss: dict[str, Any],
        eigen_cue: dict[str, Any],
        switch_step: int = 200,
        object_share: float = 0.9,
        photometric_view: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.correspondence_loss = MODELS.build(correspondence_loss)
        self.object_loss = MODELS.build(object_loss)
        self.eigen_cue = MODELS.build(eigen_cue)
        self.switch_step, self.object_share = switch_step, object_share
        self.photometric_view = PhotometricView(**(BLUR | (photometric_view or {})))
        channels, count = self.decode_head.channels, len(self.cluster_probe.centres)
        self.project_head = nn.Linear(channels, channels)
        vectors = self.eigen_cue.num_vectors - 1
        # docs/methods/eagle.md 4.2: the directions of the images, and those of their other view.
        self.eigen_lookups = nn.ModuleList(ClusterProbe(vectors, count, alpha=1.0) for _ in range(2))

    def host_losses(self, inputs: Inputs | dict[str, Inputs]) -> HostStep:
        """Losses of images (B, 3, H, W), B at least 2.

        Raises:
            ValueError: If the batch holds several views, or fewer than two images.
        """
        images = single_view(inputs, type(self).__name__)
        features, view = self.extract_feat(images), self.extract_feat(self.other_view(images))
        # x, x+ and x~: the first two are the same images with channel dropouts of their own.
        all_features = torch.cat([features, features, view])
        codes = self.decode_head(all_features)
        dropped = self.decode_head.drop(all_features).chunk(3)
        code, same, other = codes.chunk(3)
        losses = self.correspondence_loss(dropped, (code, same, other))
        colours = self.colours(images, code)
        lookups = zip((same, other), self.eigen_lookups)
        eigen, cues = zip(*(self.cue(one, colours, lookup) for one, lookup in lookups))
        z, z_view = self.project(same), self.project(other)
        count = len(self.cluster_probe.centres)
        objects = self.object_loss(z, z_view, cues[0], patch_weights(dropped[1]), count)
        objects = objects + self.object_loss(z_view, z, cues[1], patch_weights(dropped[2]), count)
        share = self.share
        # While u = 0 the objects stay in the graph: Adam counts their steps (docs/methods/eagle.md 5).
        losses = {name: (1 - share) * loss for name, loss in losses.items()}
        losses |= dict(loss_object=share * objects, loss_eigen=torch.stack(eigen).mean())
        return HostStep(losses, codes, code)

    @property
    def first_steps(self) -> dict[str, int]:
        """The cues begin after the switch."""
        return super().first_steps | {'model.switch_step': self.switch_step + 1}

    @property
    def share(self) -> float:
        """The share u of the cues in this step."""
        return 0.0 if self.step <= self.switch_step else self.object_share

    def cue(self, code: Tensor, colours: Tensor, lookup: Any) -> tuple[Tensor, Tensor]:
        """Loss of a set of directions on the eigenvectors of a code (B, D, h, w), and the cues (B h w)."""
        vectors = self.eigen_cue(code, colours)
        (loss,) = lookup.loss(vectors).values()
        return loss, lookup(vectors).argmax(1).flatten()

    def project(self, code: Tensor) -> Tensor:
        """Unit rows (B h w, D) of the projected code (B, D, h, w)."""
        return F.normalize(self.project_head(code.permute(0, 2, 3, 1).flatten(0, 2)), dim=1)

    def colours(self, images: Inputs, code: Tensor) -> Tensor:
        """Colours of the images at the size of the code, (B, 3, h, w)."""
        if isinstance(images, FrozenInputs) and ('colours' in images.extras or images.images is None):
            return images.extra('colours', type(self).__name__)
        return small_colours(pixels(images), (code.shape[-2], code.shape[-1]))

    @property
    def frozen_fields(self) -> dict[str, str]:
        """Features and colours; eigenvectors follow the code, which learns."""
        return dict(features='', colours='')

    @property
    def frozen_types(self) -> dict[str, torch.dtype]:
        """The colours are kept in float32."""
        return dict(colours=torch.float32)

    def freeze(self, images: Tensor) -> FrozenInputs:
        """Features, and colours at their size."""
        features = self.backbone(images)
        colours = small_colours(images, (features.shape[-2], features.shape[-1]))
        return FrozenInputs(features, (images.shape[-2], images.shape[-1]), dict(colours=colours))
