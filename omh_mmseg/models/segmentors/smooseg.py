"""SmooSeg: smoothness prior approach for unsupervised semantic segmentation."""

from __future__ import annotations

from typing import Any, ClassVar

from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import Inputs, single_view
from omh_mmseg.structures.host_step import HostStep
from omh_mmseg.utils.checks import ranges


@MODELS.register_module()
class SmooSeg(UnsupervisedSegmentor):
    """Learns code and prototypes so that the assignments are smooth where the frozen features are.

    No label takes part in the training; a ``linear_probe`` may be added for reports. The prediction is the teacher's.

    Args:
        smoothness_loss: Config of `SmoothnessEnergyLoss`.
        cluster_probe: Config of `PrototypeHead`; sizes are filled in.
        share_prototypes: OMH's level 1 is the teacher instead of a clustering of its own: it follows the teacher, takes
            no gradient, and ``pred_level1`` equals the prediction of the host.
        **kwargs: See `UnsupervisedSegmentor`.

    Raises:
        ValueError: If prototypes are to be shared with an absent OMH head, or one of a single level.

    Source: Lan et al., SmooSeg: Smoothness Prior for Unsupervised Semantic Segmentation, NeurIPS 2023;
    docs/methods/smooseg.md 3C.
    """

    PROBE_METHODS: ClassVar = ('assignments', 'update_teacher')

    @ranges()
    def __init__(
        self,
        smoothness_loss: dict[str, Any],
        cluster_probe: dict[str, Any],
        share_prototypes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(cluster_probe=cluster_probe, **kwargs)
        if share_prototypes and self.omh_head is None:
            raise ValueError('share_prototypes=True needs an omh_head to share with; set omh_head or leave it out.')
        self.smoothness_loss = MODELS.build(smoothness_loss)
        self.share_prototypes = share_prototypes
        self._share_prototypes()

    def host_losses(self, inputs: Inputs | dict[str, Inputs]) -> HostStep:
        """Smoothness energies of images (B, 3, H, W), B at least 2.

        Raises:
            ValueError: If the batch holds several views, or fewer than two images.
        """
        features = self.extract_feat(single_view(inputs, type(self).__name__))
        code = self.decode_head(features)
        # docs/methods/features.md 2.2: the closeness comes from features with a channel dropout of their own.
        dropped = self.decode_head.drop(features)
        losses = self.smoothness_loss(dropped, self.cluster_probe.assignments(code))
        return HostStep(losses, code, code)

    def after_losses(self) -> None:
        """The teacher, as the losses saw it, takes in the student as the optimiser left it in the step before.

        Gradients of the losses do not depend on the change. Source: docs/methods/smooseg.md 3C.6.
        """
        self.cluster_probe.update_teacher()
        self._share_prototypes()

    def _share_prototypes(self) -> None:
        if self.share_prototypes and self.omh_head is not None:
            self.share_prototypes_with_omh()
