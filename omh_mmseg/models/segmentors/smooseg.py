"""SmooSeg: smoothness prior approach for unsupervised semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import Inputs


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
        ValueError: If prototypes are to be shared with an absent OMH head.

    Source: Lan et al., SmooSeg: Smoothness Prior for Unsupervised Semantic Segmentation, NeurIPS 2023; METHODS.md 3C.
    """

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
        self._hand_over_prototypes()

    def loss(self, inputs: Inputs | dict[str, Inputs], data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Losses of one step, all against the teacher as it was before; then the teacher follows the student.

        It thus takes in the student that the optimiser left in the step before (METHODS.md 3C.6). Gradients of the
        losses returned here do not depend on the change.
        """
        losses = super().loss(inputs, data_samples)
        self.cluster_probe.update_teacher()
        self._hand_over_prototypes()
        return losses

    def host_losses(self, inputs: Inputs | dict[str, Inputs]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Smoothness energies of images (B, 3, H, W), B at least 2.

        Raises:
            ValueError: If the batch holds several views, or fewer than two images.
        """
        if isinstance(inputs, dict):
            raise ValueError(
                f'SmooSeg trains on single images and got the views {sorted(inputs)}. '
                "Take the wrapper dict(type='NeighbourPairs', ...) off the train data set."
            )
        features = self.extract_feat(inputs)
        code = self.decode_head(features)
        # METHODS.md 2.2: the closeness comes from features with a channel dropout of their own.
        dropped = self.decode_head.drop(features)
        losses = self.smoothness_loss(dropped, self.cluster_probe.assignments(code))
        return losses, code, code

    def _hand_over_prototypes(self) -> None:
        if self.share_prototypes and self.omh_head is not None:
            self.omh_head.follow_coarsest(self.cluster_probe.centres)
