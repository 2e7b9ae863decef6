"""Agreement of activations with those of a later frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.evaluation.heads import PROBE_FIELD, head_of
from omh_mmseg.flow import warp
from omh_mmseg.models.utils.similarity import code_similarity
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.temporal import FLOW
from omh_mmseg.utils.checks import POSITIVE, STEPS, WEIGHT, ranges

CLUSTERINGS = ('levels', 'all')


@MODELS.register_module()
class TemporalConsistencyLoss(nn.Module):
    r"""Pulls the activations of a frame towards those that a later frame has of the same things.

    With :math:`a_p = softmax_k(s_{pk} / \tau)` of the cosines s of a code with the centres of a clustering, b those of
    the later frame and f the flow to it,

    .. math::
        L = \frac{1}{\sum_p v_p} \sum_p v_p \, KL(b_{p + f(p)} \,\|\, a_p)

    per clustering, the mean over those that take part. :math:`v_p` is the share of the position's pixels that the later
    frame shows as well. No gradient goes through b, nor into the centres: what learns is the code. The term is no
    host's; a choice of this library, docs/video.md.

    Args:
        loss_weight: Factor on the result. With 0.1 and more the code of STEGO loses what it tells apart (docs/video.md,
            Study).
        temperature: tau.
        begin: First step with the term; before it there is no loss.
        clusterings: ``'levels'``: OMH's levels take part, and the host's probe where there are none; ``'all'``: the
            probe as well. Its centres follow the code, so that nothing holds it against one prediction for all.

    Raises:
        ValueError: On values out of range, or other clusterings.
    """

    @ranges(loss_weight=WEIGHT, temperature=POSITIVE, begin=STEPS)
    def __init__(
        self, loss_weight: float = 0.02, temperature: float = 0.1, begin: int = 0, clusterings: str = 'levels'
    ) -> None:
        super().__init__()
        if clusterings not in CLUSTERINGS:
            raise ValueError(
                f'TemporalConsistencyLoss: clusterings must be one of {CLUSTERINGS}; got {clusterings!r}.'
            )
        if loss_weight == 0:
            raise ValueError('TemporalConsistencyLoss: loss_weight is 0; leave the loss out with model.temporal=None.')
        self.loss_weight, self.temperature, self.begin = loss_weight, temperature, begin
        self.clusterings = clusterings

    def forward(
        self, code: Tensor, later: Tensor, centres: Mapping[str, Tensor], flow: Tensor, shown: Tensor
    ) -> dict[str, Tensor]:
        """Loss, and what it is of each clustering.

        Args:
            code: (B, D, h, w), **not** detached.
            later: Code of the later frames, likewise.
            centres: (K, D) by the field that they predict.
            flow: To the later frames, (B, 2, h, w), in positions of the code.
            shown: v, (B, h, w), in [0, 1].

        Returns:
            ``loss_temporal``, and without gradient ``temporal_<head>`` per clustering, whether it takes part or not,
            and ``temporal_shown``, the mean of v.
        """
        terms = {}
        with torch.autocast(code.device.type, enabled=False):
            shown = shown.to(torch.float32)
            for field, each in centres.items():
                each = each.detach()
                logs = torch.log_softmax(code_similarity(code, each) / self.temperature, 1)
                target = torch.softmax(code_similarity(later.detach(), each) / self.temperature, 1)
                divergence = F.kl_div(logs, warp(target, flow).to(logs), reduction='none').sum(1)
                terms[field] = (shown * divergence).sum() / shown.sum().clamp_min(1e-6)
        figures = {f'temporal_{head_of(field)}': term.detach() for field, term in terms.items()}
        levels = [term for field, term in terms.items() if field != PROBE_FIELD]
        part = list(terms.values()) if self.clusterings == 'all' or not levels else levels
        loss = self.loss_weight * torch.stack(part).mean()
        return dict(loss_temporal=loss, **figures, temporal_shown=shown.mean())


def stacked_flow(
    samples: Sequence[Any], image: tuple[int, int], grid: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Flow (B, 2, h, w) in positions of a code, and the visible share (B, h, w), of the samples of a batch.

    Args:
        samples: With the field ``flow_to_later``.
        image: Height and width of the batch in pixels, padding included; what is padded is not shown.
        grid: h and w.
        device: Of the result.

    Raises:
        ValueError: A sample has no flow.
    """
    if any(FLOW not in sample for sample in samples):
        raise ValueError(
            'the temporal term needs the flow to the later frame in each data sample; TemporalPairs puts it there'
        )
    fields = []
    for sample in samples:
        field = sample.get(FLOW).data.to(device)
        height, width = sample.metainfo.get('img_shape', image)[:2]
        cells = (-(-image[0] * field.shape[1] // height), -(-image[1] * field.shape[2] // width))
        fields.append(F.pad(field, (0, cells[1] - field.shape[2], 0, cells[0] - field.shape[1])))
    together = torch.stack(fields).float()
    # In pixels of the input; a position of the code has so many.
    scales = together.new_tensor([grid[1] / image[1], grid[0] / image[0]])[:, None, None]
    flow = F.interpolate(together[:, :2], size=grid, mode='bilinear', align_corners=False) * scales
    shown = F.interpolate(together[:, 2:], size=grid, mode='bilinear', align_corners=False)[:, 0]
    return flow, shown
