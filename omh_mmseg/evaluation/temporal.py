"""How steady predictions are from frame to frame, without labels; docs/video.md says what the figures mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from torch import Tensor

from omh_mmseg.evaluation.heads import head_of
from omh_mmseg.flow import resize_flow, warp_labels
from omh_mmseg.structures.temporal import FLOW_BEFORE, SECONDS, SEQUENCE

CONSISTENCY, CHANGES = 'TC', 'changes'
"""Names of the figures of a head."""


def consistency(counts: np.ndarray) -> float:
    """Mean IoU in percent between predictions and those of the frame before, over the clusters that either has.

    Args:
        counts: Pixels by cluster of the frame and cluster of the one before, (K, K).

    Returns:
        NaN without a pixel.
    """
    same = np.diag(counts).astype(float)
    union = counts.sum(0) + counts.sum(1) - same
    return 100 * float((same[union > 0] / union[union > 0]).mean()) if (union > 0).any() else math.nan


class TemporalCounts:
    """Counts of clusters that follow each other, by field, over frames in their order.

    A pixel counts where the frame before shows it as well, see `omh_mmseg.flow.visible`.
    """

    def __init__(self) -> None:
        self.counts: dict[str, np.ndarray] = {}
        self.pairs = 0
        # Changed pixels by field, and pixels times the seconds that passed, of frames whose time is known.
        self._changed: dict[str, int] = {}
        self._pixel_seconds = 0.0
        self._timed = True
        self._before: tuple[Any, dict[str, Tensor]] | None = None

    def add(self, sample: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        """Take a frame into account.

        Args:
            sample: A data sample as a dictionary, with predictions (1, H, W).
            sizes: Number of clusters by the fields to be taken.

        Raises:
            ValueError: Predictions of two sizes in a sequence, or of a part of the frame.
        """
        sequence = sample[SEQUENCE]
        if 'crop_bbox' in sample:
            raise ValueError(f'{sample.get("img_path")}: a crop was predicted, and the flow is of whole frames')
        now = {field: sample[field]['data'].squeeze(0).long() for field in sizes if field in sample}
        before, self._before = self._before, (sequence, now)
        if FLOW_BEFORE not in sample or before is None or before[0] != sequence:
            return
        flow = sample[FLOW_BEFORE]['data']
        seconds, pixels = sample.get(SECONDS), 0
        for field, labels in now.items():
            earlier = before[1].get(field)
            if earlier is None or earlier.shape != labels.shape:
                raise ValueError(f'{sample.get("img_path")}: {field} has another size than in the frame before')
            moved, shown = _moved(earlier, flow.to(labels.device))
            first, second, size = labels[shown], moved[shown], sizes[field]
            if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < size:
                raise ValueError(f'{sample.get("img_path")}: {field} has values beyond 0..{size - 1}')
            pixels = first.numel()
            counts = torch.bincount(first * size + second, minlength=size * size).view(size, size).cpu().numpy()
            self.counts[field] = self.counts.get(field, 0) + counts
            if seconds is not None:
                self._changed[field] = self._changed.get(field, 0) + int((first != second).sum())
        self.pairs += 1
        self._timed &= seconds is not None
        self._pixel_seconds += pixels * (seconds or 0)

    def scores(self, names: Mapping[str, str], prefix: str = '') -> dict[str, float]:
        """Score and log.

        Args:
            names: Of the fields; others are called as `head_of` says.
            prefix: Put before every name.

        Returns:
            ``<name>/TC`` in percent and, where times are known, ``<name>/changes`` in percent of the pixels per second;
            empty where no frame followed another.
        """
        found: dict[str, float] = {}
        lines = [f'steadiness over {self.pairs} pairs of frames, of the pixels that both show:']
        for field, counts in self.counts.items():
            name = '/'.join(filter(None, (prefix, names.get(field, head_of(field)))))
            found[f'{name}/{CONSISTENCY}'] = consistency(counts)
            rate = 'the times of the frames are not known'
            if self._timed and self._pixel_seconds > 0:
                found[f'{name}/{CHANGES}'] = 100 * self._changed[field] / self._pixel_seconds
                rate = f'{found[f"{name}/{CHANGES}"]:.2f} % of the pixels change per second'
            lines.append(f'{name}: TC {found[f"{name}/{CONSISTENCY}"]:.2f}, {rate}')
        if found:
            MMLogger.get_current_instance().info('\n'.join(lines))
        return found


def _moved(earlier: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (H, W) of the frame before along the flow (3, h, w), and which pixels it shows."""
    height, width = earlier.shape
    flow = resize_flow(field[None, :2], (height, width))
    shown = field[None, 2:]
    if shown.shape[-2:] != earlier.shape:
        shown = F.interpolate(shown, size=(height, width), mode='nearest')
    return warp_labels(earlier[None], flow)[0], shown[0, 0] > 0.5
