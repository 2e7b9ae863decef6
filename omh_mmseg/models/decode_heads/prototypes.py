"""SmooSeg's predictor: student prototypes that learn and a teacher that follows them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from omh_mmseg.models.utils.similarity import code_similarity
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import POSITIVE, SHARE, SIZE, ranges


@MODELS.register_module()
class PrototypeHead(BaseModule):
    r"""Two sets of K prototypes, compared with the code by cosine.

    The teacher :math:`P_t` assigns: to the energy softly, :math:`Y = softmax(a_t / \tau)`, to the student by its
    arg-max, and in the prediction. The student :math:`P_s` learns these pseudo-labels; the teacher is the moving
    average of the raw student. As in the other hosts' place for it, this is the ``cluster_probe`` of a segmentor.

    Args:
        in_channels: D of the code.
        num_classes: K, at least 2.
        temperature: tau above 0 of the soft assignment.
        momentum: m in [0, 1] of the teacher.
        init_cfg: See mmengine.

    Attributes:
        student: P_s, parameter (K, D); Xavier-normal at the start, then each row brought to length 1, once.
        centres: P_t, buffer (K, D); a copy of the student at the start, never normalised after it.

    Raises:
        ValueError: On values outside the ranges above, or in_channels below 1.

    Source: docs/methods/smooseg.md 2.6, 3C.2, 3C.4, 3C.6.
    """

    centres: Tensor
    TRAINED_BY: ClassVar = 'SmooSeg'

    @ranges(in_channels=SIZE, num_classes=SIZE, temperature=POSITIVE, momentum=SHARE)
    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        temperature: float = 0.1,
        momentum: float = 0.998,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_classes < 2:
            raise ValueError(
                f'num_classes must be at least 2; got {num_classes}. With one prototype every position has the same '
                'assignment, and neither the energy nor the data term has anything to learn.'
            )
        self.num_classes = num_classes
        self.temperature = temperature
        self.momentum = momentum
        start = F.normalize(nn.init.xavier_normal_(torch.empty(num_classes, in_channels)), dim=1)
        self.student = nn.Parameter(start)
        self.register_buffer('centres', start.clone())

    def forward(self, code: Tensor) -> Tensor:
        """Cosines (B, K, h, w) of a code (B, D, h, w) with the teacher, in float32 or wider; no gradient to it."""
        return code_similarity(code, self.centres)

    def assignments(self, code: Tensor) -> Tensor:
        """Y (B, K, h, w) of a code (B, D, h, w), with gradient to the code alone."""
        return torch.softmax(self(code) / self.temperature, dim=1)

    def loss(self, code: Tensor) -> dict[str, Tensor]:
        """``loss_data``; its gradient reaches the student alone.

        Cross-entropy of the student's raw cosines, without a temperature, against the teacher's arg-max. Cosines span
        two units, so that it stays above ``log(1 + (K - 1) / e^2)``: 1.51 for 27 classes.
        """
        code = code.detach()
        return dict(loss_data=F.cross_entropy(code_similarity(code, self.student), self(code).argmax(1)))

    @torch.no_grad()
    def update_teacher(self) -> None:
        """``P_t <- m P_t + (1 - m) P_s``; once per step, after the losses and before the optimiser's step."""
        self.centres.lerp_(self.student.detach(), 1 - self.momentum)
