"""Hungarian-matched IoU and accuracy of every prediction that a model makes for an image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, get_dist_info
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from PIL import Image
from prettytable import PrettyTable

from omh_mmseg.evaluation.matching import (
    SegmentationScores,
    confusion_matrix,
    hungarian_assignment,
    scores_from_confusion,
)
from omh_mmseg.files import replaced_when_complete
from omh_mmseg.registry import METRICS

DEFAULT_HEADS = {
    'pred_sem_seg': ('probe', 'hungarian'),
    'pred_linear': ('linear', 'identity'),
    'pred_level1': ('level1', 'hungarian'),
}
MATCHINGS = ('hungarian', 'identity')
MAX_PNG_VALUE = 255


@METRICS.register_module()
class UnsupervisedIoUMetric(BaseMetric):
    """Scores of METHODS.md 6.6 for the cluster probe, the linear probe and OMH's coarsest level.

    Each head owns one int64 count matrix (clusters x classes) over the whole data set. ``process`` adds to it, and
    ``evaluate`` sums the matrices of all heads over the ranks in a single reduction; no per-image result is kept. A
    head whose field no sample carries is left out, so one metric serves hosts with and without OMH.

    Samples without ``gt_sem_seg`` are counted and left out. If there are no labels at all, ``evaluate`` says so and
    returns no scores.

    Args:
        ignore_index: Label of the pixels that are left out.
        heads: Field of the data sample -> (name in the scores, ``'hungarian'`` or ``'identity'``). Default:
            ``pred_sem_seg`` is ``probe``, ``pred_linear`` is ``linear`` (identity), ``pred_level1`` is ``level1``.
        num_clusters: Number of clusters of the Hungarian heads, or field -> number. Default: the number of classes.
            Pixels of the clusters that find no class count as misses.
        output_dir: Folder for the ``pred_sem_seg`` of each image as ``<image stem>.png``, uint8 cluster numbers.
        keep_results: Accepted because mmseg's ``test.py --out`` sets it; the written predictions are always kept.
        format_only: Write the predictions only and return no scores. Needs ``output_dir``.
        collect_device: mmengine's, ``'cpu'`` or ``'gpu'``. Without effect: the matrices are reduced on the device of
            the communication back end.
        prefix: Put before every name, ``<prefix>/probe/mIoU``.

    Attributes:
        last_result: Name -> :class:`SegmentationScores` of the latest evaluation (per-class IoU, assignment, counts).
    """

    default_prefix = ''

    def __init__(
        self,
        ignore_index: int = 255,
        heads: Mapping[str, Sequence[str]] | None = None,
        num_clusters: int | Mapping[str, int] | None = None,
        output_dir: str | None = None,
        keep_results: bool = False,
        format_only: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.heads = _checked_heads(DEFAULT_HEADS if heads is None else heads)
        if format_only and output_dir is None:
            raise ValueError('format_only=True writes predictions and nothing else, so it needs output_dir')
        self.ignore_index = ignore_index
        self.num_clusters = num_clusters
        self.output_dir = None if output_dir is None else Path(output_dir)
        if self.output_dir is not None:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        self.keep_results = keep_results
        self.format_only = format_only
        self.last_result: dict[str, SegmentationScores] = {}
        self._reset()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch and write its predictions if asked to.

        Args:
            data_batch: Not used.
            data_samples: Data samples as dictionaries, with the fields of ``heads`` and, where known, ``gt_sem_seg``.

        Raises:
            ValueError: Sizes of prediction and label differ, or a value is out of range; names the image.
        """
        for sample in data_samples:
            if self.output_dir is not None:
                self._write(sample, self.output_dir)
            if not self.format_only:
                self._add(sample)

    def evaluate(self, size: int) -> dict[str, float]:
        """Reduce over the ranks, score, log and start afresh.

        Args:
            size: Number of images of the data set. A sampler that rounds up repeats images as the last one of some
                ranks; those are left out.

        Returns:
            ``<name>/mIoU`` and ``<name>/aAcc`` in percent per head, the same on every rank; empty without labels.
        """
        try:
            if self.output_dir is not None:
                self._report_written(self.output_dir)
            if self.format_only:
                return {}
            counts, seen, num_labelled, num_unlabelled = self._reduced(size)
        finally:
            self._reset()

        self.last_result = {}
        if num_labelled and not any(seen.values()):
            raise ValueError(f'no labelled sample has a field of {list(self.heads)}; set heads to the fields it has')
        logger = MMLogger.get_current_instance()
        if num_labelled == 0 or not any(matrix.any() for matrix in counts.values()):
            logger.warning(
                f'no labels: scores are unavailable ({num_labelled + num_unlabelled} images predicted, '
                f'{num_labelled} of them with a label file, none with a labelled pixel)'
            )
            return {}
        if num_unlabelled:
            logger.warning(f'scores cover {num_labelled} images; {num_unlabelled} more have no label and are left out')
        metrics = self.compute_metrics([(field, counts[field]) for field in self.heads if seen[field]])
        return {f'{self.prefix}/{key}' if self.prefix else key: value for key, value in metrics.items()}

    def compute_metrics(self, results: list[tuple[str, np.ndarray]]) -> dict[str, float]:
        """Score and log the count matrix of each head.

        Args:
            results: Pairs of field and count matrix, already summed over the ranks.

        Returns:
            ``<name>/mIoU`` and ``<name>/aAcc`` in percent.
        """
        metrics = {}
        for field, counts in results:
            name, matching = self.heads[field]
            assignment = hungarian_assignment(counts) if matching == 'hungarian' else None
            scores = scores_from_confusion(counts, assignment)
            self.last_result[name] = scores
            metrics[f'{name}/mIoU'] = scores.mean_iou
            metrics[f'{name}/aAcc'] = scores.pixel_accuracy
            self._log(name, matching, scores)
        return metrics

    @property
    def _classes(self) -> Sequence[str]:
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError(
                "the data set names no classes: give it metainfo=dict(classes=(...)) so that the scores' size is known"
            )
        return classes

    def _shape(self, field: str) -> tuple[int, int]:
        num_classes = len(self._classes)
        clusters = self.num_clusters
        if isinstance(clusters, Mapping):
            clusters = clusters.get(field)
        if clusters is None or self.heads[field][1] == 'identity':
            clusters = num_classes
        return clusters, num_classes

    def _reset(self) -> None:
        self._counts: dict[str, np.ndarray] = {}
        self._latest: dict[str, np.ndarray] = {}
        self._seen = dict.fromkeys(self.heads, 0)
        self._labelled = [0, 0]  # without, with
        self._latest_labelled: bool | None = None
        self._num_processed = 0
        self._written: dict[str, str] = {}

    def _add(self, sample: Mapping[str, Any]) -> None:
        # The latest image is held apart until the next one comes: it may be a sampler's repetition, which only the
        # data set's size in `evaluate` can tell.
        self._settle_latest()
        self._num_processed += 1
        self._latest_labelled = 'gt_sem_seg' in sample
        if not self._latest_labelled:
            return
        target = sample['gt_sem_seg']['data'].squeeze(0)
        for field in self.heads:
            if field not in sample:
                continue
            num_predicted, num_classes = self._shape(field)
            pred = sample[field]['data'].squeeze(0)
            try:
                self._latest[field] = confusion_matrix(pred, target, num_predicted, num_classes, self.ignore_index)
            except ValueError as error:
                label = f' (label {sample["seg_map_path"]})' if sample.get('seg_map_path') else ''
                raise ValueError(f'{sample.get("img_path", "an image")}{label}, {field}: {error}') from error

    def _settle_latest(self) -> None:
        if self._latest_labelled is not None:
            self._labelled[int(self._latest_labelled)] += 1
        for field, counts in self._latest.items():
            self._counts[field] = self._counts.get(field, 0) + counts
            self._seen[field] += 1
        self._latest, self._latest_labelled = {}, None

    def _reduced(self, size: int) -> tuple[dict[str, np.ndarray], dict[str, int], int, int]:
        """Sum counts, samples per head and numbers of labelled and unlabelled images over the ranks, in one call."""
        rank, world_size = get_dist_info()
        rounded_up = self._num_processed == -(-size // world_size)
        if not (rounded_up and (self._num_processed - 1) * world_size + rank >= size):
            self._settle_latest()

        shapes = {field: self._shape(field) for field in self.heads}
        matrices = [self._counts.get(field, np.zeros(shapes[field], np.int64)).ravel() for field in self.heads]
        summary = np.array([*self._seen.values(), *self._labelled], dtype=np.int64)
        flat = torch.from_numpy(np.concatenate([*matrices, summary]))
        all_reduce(flat)

        values, start, counts = flat.numpy(), 0, {}
        for field, (num_predicted, num_classes) in shapes.items():
            stop = start + num_predicted * num_classes
            counts[field] = values[start:stop].reshape(num_predicted, num_classes)
            start = stop
        *seen, num_unlabelled, num_labelled = values[start:].tolist()
        return counts, dict(zip(self.heads, seen, strict=True)), num_labelled, num_unlabelled

    def _write(self, sample: Mapping[str, Any], folder: Path) -> None:
        path = sample['img_path']
        name = self._output_name(path)
        labels = sample['pred_sem_seg']['data'].squeeze(0).cpu().numpy()
        if labels.min() < 0 or labels.max() > MAX_PNG_VALUE:
            raise ValueError(
                f'{path}: pred_sem_seg has values {labels.min()}..{labels.max()}; an 8-bit PNG holds 0..{MAX_PNG_VALUE}'
            )
        with replaced_when_complete(folder / name) as file:
            Image.fromarray(labels.astype(np.uint8)).save(file, format='png')
        self._written[name] = str(path)

    def _output_name(self, path: str) -> str:
        """``<stem>.png``, or with as many parent folders before it as it takes to be the only one of its name."""
        parts = Path(path).with_suffix('.png').parts
        for length in range(1, len(parts) + 1):
            name = '_'.join(part.strip(os.sep) for part in parts[-length:])
            if self._written.get(name, str(path)) == str(path):
                return name
        raise ValueError(f'{path}: no free name for its prediction in {self.output_dir}')

    def _report_written(self, folder: Path) -> None:
        logger = MMLogger.get_current_instance()
        owners: dict[str, str] = {}
        for written in all_gather_object(self._written):
            for name, path in written.items():
                if owners.setdefault(name, path) != path:
                    logger.warning(
                        f'{folder / name} holds the prediction of only one of {owners[name]} and {path}, '
                        'which two processes wrote: run the test in one process, or give the images different names'
                    )
        logger.info(f'predictions of {len(owners)} images are in {folder}')

    def _log(self, name: str, matching: str, scores: SegmentationScores) -> None:
        classes = self._classes
        clusters = {int(label): cluster for cluster, label in enumerate(scores.assignment) if label >= 0}
        table = PrettyTable()
        table.add_column('Class', list(classes))
        table.add_column('Cluster', [clusters.get(label, '-') for label in range(len(classes))])
        table.add_column('IoU', [f'{value:.2f}' for value in scores.iou])
        table.add_column('Acc', [f'{value:.2f}' for value in scores.accuracy])
        lines = [
            f'{name} ({matching}): mIoU {scores.mean_iou:.2f}, aAcc {scores.pixel_accuracy:.2f}',
            table.get_string(),
        ]
        if scores.absent:
            lines.append('without ground truth: ' + ', '.join(classes[label] for label in scores.absent))
        MMLogger.get_current_instance().info('\n'.join(lines))


def _checked_heads(heads: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, str]]:
    checked: dict[str, tuple[str, str]] = {}
    for field, head in heads.items():
        if isinstance(head, str) or len(head) != 2 or head[1] not in MATCHINGS:
            raise ValueError(f'heads[{field!r}] is {head!r}; it must be a pair (name, one of {MATCHINGS})')
        checked[field] = (str(head[0]), str(head[1]))
    names = [name for name, _ in checked.values()]
    if not names or len(set(names)) != len(names):
        raise ValueError(f'heads must have at least one entry and different names, got {names}')
    return checked
