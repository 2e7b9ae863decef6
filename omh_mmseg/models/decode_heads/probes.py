"""The two evaluation probes; both see the detached code only."""

from __future__ import annotations

from typing import Any

import torch
from mmengine import dist
from mmengine.model import BaseModule
from torch import Tensor, nn

from omh_mmseg.models.losses.cluster_loss import ClusterLoss
from omh_mmseg.models.losses.upsampled_cross_entropy import upsampled_cross_entropy
from omh_mmseg.models.utils.similarity import code_similarity
from omh_mmseg.models.utils.step_counter import StepCounter
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import POSITIVE, SIZE, ranges
from omh_mmseg.utils.precision import widened

UNKNOWN, NO_LABEL, LABELS = range(3)
"""What is known of the labels that a linear probe was trained on."""
MARK = 'unlabelled'
"""Key that the weights of a probe have if it was trained and never saw a label."""


@MODELS.register_module()
class ClusterProbe(BaseModule):
    """K-means-like clustering of the code by cosine.

    Args:
        in_channels: D of the code.
        num_classes: K, the number of classes.
        alpha: None for hard assignments, else the inverse temperature of soft ones.
        extra_clusters: Clusters beyond the K; one-to-one matching leaves as many without a class.
        init_cfg: See mmengine.

    Raises:
        ValueError: If a size is below 1, or ``extra_clusters`` below 0.

    Source: docs/methods/features.md 2.4, docs/methods/stego.md 3A.5.
    """

    @ranges(in_channels=SIZE, num_classes=SIZE, alpha=POSITIVE, extra_clusters='[0, 16384]')
    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        alpha: float | None = None,
        extra_clusters: int = 0,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.centres = nn.Parameter(torch.randn(num_classes + extra_clusters, in_channels))
        self.cluster_loss = ClusterLoss(alpha)

    def forward(self, code: Tensor) -> Tensor:
        """Cosines (B, K, h, w) of a code (B, D, h, w); K with the extra clusters."""
        return code_similarity(code, self.centres)

    def loss(self, code: Tensor) -> dict[str, Tensor]:
        """``loss_cluster_probe``; its gradient reaches the centres alone."""
        return dict(loss_cluster_probe=self.cluster_loss(self(code.detach())))


@MODELS.register_module()
class LinearProbe(BaseModule):
    """Supervised linear classifier of the code, for reporting only.

    Args:
        in_channels: D of the code.
        num_classes: K classes.
        row_share: Share of the rows of pixels whose labels count in a step, in (0, 1]: with less than 1 a random row
            of each of so many strips, of all images alike, which estimates the loss of all.
        over_all: Divide the loss by the number of all pixels, those without a label included, as PriMaPs does.
        init_cfg: See mmengine.

    Attributes:
        unlabelled: Whether it was trained and never saw a label, so that its classes are random. This is kept with the
            weights.

    Raises:
        ValueError: If a size is below 1.

    Source: docs/methods/features.md 2.4, docs/methods/stego.md 3A.5.
    """

    evidence: Tensor

    @ranges(in_channels=SIZE, num_classes=SIZE, row_share='(0, 1]')
    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        row_share: float = 1.0,
        over_all: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.row_share = row_share
        self.over_all = over_all
        self.classifier = nn.Conv2d(in_channels, num_classes, 1)
        # Not persistent, as weights with and without it must fit: see `_save_to_state_dict`.
        self.register_buffer('evidence', torch.tensor(UNKNOWN), persistent=False)
        self._evidence_reader = StepCounter()

    @property
    def unlabelled(self) -> bool:
        """See the class."""
        return self._evidence_reader.read(self.evidence) == NO_LABEL

    def forward(self, code: Tensor) -> Tensor:
        """Logits (B, K, h, w) of a code (B, D, h, w)."""
        return self.classifier(code)

    def loss(self, code: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of logits upsampled to the labels, over labels in 0..K-1.

        Args:
            code: (B, D, h, w); detached here.
            labels: (B, H, W) integers; values outside 0..K-1 are ignored.

        Returns:
            ``loss_linear_probe``: scalar, 0 where no label counts.
        """
        if self.training:
            seen = torch.where(((labels >= 0) & (labels < self.num_classes)).any(), LABELS, NO_LABEL)
            dist.all_reduce(seen, op='max')
            torch.maximum(self.evidence, seen, out=self.evidence)
        logits = widened(self(code.detach()))
        rows = None if self.row_share == 1 else self._drawn_rows(labels.shape[-2], labels.device)
        return dict(loss_linear_probe=upsampled_cross_entropy(logits, labels, rows, over_all=self.over_all))

    def _drawn_rows(self, height: int, device: torch.device) -> Tensor:
        """Numbers of rows of pixels, one from each of as many equal strips."""
        count = max(1, round(self.row_share * height))
        # The probe acts on nothing else, nor do its draws.
        with torch.random.fork_rng(devices=[]):
            places = torch.rand(count, dtype=torch.float64)
        return ((torch.arange(count) + places) * (height / count)).long().clamp_max(height - 1).to(device)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.unlabelled:
            destination[prefix + MARK] = torch.tensor(True)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if any(key.startswith(prefix) for key in state_dict):
            # Weights without the mark are those of labelled runs, of converted checkpoints and of older versions.
            self.evidence.fill_(NO_LABEL if prefix + MARK in state_dict else LABELS)
        state_dict = {key: value for key, value in state_dict.items() if key != prefix + MARK}
        super()._load_from_state_dict(state_dict, prefix, *args)
