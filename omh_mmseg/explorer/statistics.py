"""What the page says of each cluster of a level, added up image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from omh_mmseg.evaluation.scores import confusion_matrix

MOST_EXAMPLES = 6


class LevelStatistics:
    """Sums over images of one level.

    Args:
        clusters: Their number K.
        classes: Number of classes of the labels; 0 without any.

    Attributes:
        pixels: Of each cluster, (K,).
        images: With each cluster, (K,).
        labels: Pixels of each cluster and class, (K, classes).
    """

    def __init__(self, clusters: int, classes: int = 0) -> None:
        self.pixels = np.zeros(clusters, np.int64)
        self.images = np.zeros(clusters, np.int64)
        self.labels = np.zeros((clusters, classes), np.int64)
        self._margins = np.zeros((clusters, 2))  # sum, positions
        # Per cluster the best images: size times margin, then size alone, the earlier image first.
        self._examples: list[list[tuple[float, float, int]]] = [[] for _ in range(clusters)]

    def add(
        self, index: int, clusters: np.ndarray, grid: np.ndarray, margins: np.ndarray, labels: np.ndarray | None = None
    ) -> dict[int, float]:
        """Take an image into account.

        Args:
            index: Its number in the page.
            clusters: Of its pixels, (H, W).
            grid: Of the positions of its code, (h, w).
            margins: Of these, (h, w), see `omh_mmseg.evaluation.label_free.margins`.
            labels: Of its pixels, (H, W), where known.

        Returns:
            The share of the image's pixels of every cluster that it has.
        """
        size = len(self.pixels)
        pixels = np.bincount(clusters.ravel(), minlength=size)
        self.pixels += pixels
        self.images += pixels > 0
        # A single cluster has no margin: its examples are then the largest ones.
        known = np.nan_to_num(margins.ravel().astype(np.float64), nan=1.0)
        sums = np.bincount(grid.ravel(), weights=known, minlength=size)
        positions = np.bincount(grid.ravel(), minlength=size)
        if not np.isnan(margins).any():
            self._margins += np.stack([sums, positions], axis=1)
        for cluster in np.flatnonzero(pixels):
            example = (sums[cluster] / grid.size, pixels[cluster] / clusters.size, -index)
            self._examples[cluster] = sorted([*self._examples[cluster], example], reverse=True)[:MOST_EXAMPLES]
        if labels is not None and self.labels.shape[1]:
            self.labels += confusion_matrix(clusters, np.where(labels < self.labels.shape[1], labels, 255),
                                            *self.labels.shape)  # fmt: skip
        return {int(cluster): round(pixels[cluster] / clusters.size, 5) for cluster in np.flatnonzero(pixels)}

    def describe(self, classes: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Of each cluster ``share``, ``images``, ``margin``, ``best`` (images) and, with labels, ``label``, ``purity``.

        Args:
            classes: Names of the classes of the labels.
        """
        total = max(int(self.pixels.sum()), 1)
        described = []
        for cluster, (margin, positions) in enumerate(self._margins):
            entry: dict[str, Any] = dict(
                share=round(float(self.pixels[cluster] / total), 6),
                images=int(self.images[cluster]),
                margin=round(margin / positions, 5) if positions else None,
                best=[-index for *_, index in self._examples[cluster]],
            )
            counts = self.labels[cluster]
            if counts.any():
                best = int(counts.argmax())
                entry['label'] = classes[best] if best < len(classes) else f'label {best}'
                entry['purity'] = round(float(counts[best] / counts.sum()), 5)
            described.append(entry)
        return described


def rounded(values: dict[str, float]) -> dict[str, float | None]:
    """Figures as JSON has them: None for what is no number."""
    return {name: round(value, 5) if math.isfinite(value) else None for name, value in values.items()}
