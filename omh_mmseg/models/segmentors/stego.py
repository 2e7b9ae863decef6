"""STEGO: self-supervised transformer with energy-based graph optimisation."""

from __future__ import annotations

from typing import Any

from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import Inputs, joined
from omh_mmseg.structures.host_step import HostStep


@MODELS.register_module()
class STEGO(UnsupervisedSegmentor):
    """Distils correspondences of frozen features into a compact code.

    Args:
        correlation_loss: Config of `STEGOCorrelationLoss`.
        **kwargs: See `UnsupervisedSegmentor`.

    Source: Hamilton et al., Unsupervised Semantic Segmentation by Distilling Feature Correspondences, ICLR 2022;
    docs/methods/stego.md 3A.
    """

    def __init__(self, correlation_loss: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.correlation_loss = MODELS.build(correlation_loss)

    def host_losses(self, inputs: Inputs | dict[str, Inputs]) -> HostStep:
        """Correlation losses of images ``anchor`` and their nearest neighbours ``neighbour``, each (B, 3, H, W).

        Raises:
            ValueError: If the batch carries no neighbours, or fewer than two images.
        """
        if not isinstance(inputs, dict) or not {'anchor', 'neighbour'} <= inputs.keys():
            raise ValueError(
                'STEGO trains on pairs (anchor, neighbour) and got '
                f"{sorted(inputs) if isinstance(inputs, dict) else 'single images'}. "
                "Wrap the train data set in dict(type='NeighbourPairs', ...)."
            )
        features = self.extract_feat(joined([inputs['anchor'], inputs['neighbour']]))
        both_codes = self.decode_head(features)
        code, neighbour_code = both_codes.chunk(2)
        # docs/methods/features.md 2.2: the correspondences come from features with a channel dropout of their own.
        dropped, neighbour_dropped = self.decode_head.drop(features).chunk(2)
        losses = self.correlation_loss(dropped, code, neighbour_dropped, neighbour_code)
        return HostStep(losses, both_codes, code)
