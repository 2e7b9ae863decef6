"""Matched IoU and accuracy of every prediction that a model makes for an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, get_dist_info
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from omh_mmseg.evaluation.bootstrap import PoissonBootstrap, percentile_interval
from omh_mmseg.evaluation.heads import checked_heads
from omh_mmseg.evaluation.label_maps import LabelMapWriter
from omh_mmseg.evaluation.score_table import describe_scores
from omh_mmseg.evaluation.scores import (
    ABSENT_RULES,
    SegmentationScores,
    adjusted_rand_index,
    confusion_matrix,
    majority_assignment,
    match_clusters,
    normalised_mutual_information,
    scores_from_confusion,
    without_extra_clusters,
)
from omh_mmseg.evaluation.temporal import TemporalCounts
from omh_mmseg.registry import METRICS
from omh_mmseg.structures.assignment import META_KEY, AssignmentSource, missing_assignment, read_assignment
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.structures.temporal import SEQUENCE
from omh_mmseg.utils.checks import FINITE, SIZE, STEPS, ranges

FROM_CHECKPOINT = 'checkpoint'
OUTPUTS = ('auto', 'classes', 'clusters')
CONFIDENCE = 0.95


@METRICS.register_module()
class UnsupervisedIoUMetric(BaseMetric):
    """Scores of docs/methods/evaluation.md 6.6 for the cluster probe, the linear probe and OMH's coarsest level.

    Each head owns one int64 count matrix (clusters x classes) over the whole data set. ``process`` adds to it, and
    ``evaluate`` sums the matrices of all heads over the ranks in a single reduction; no per-image result is kept. A
    head whose field no sample carries is left out, so one metric serves hosts with and without OMH.

    Samples without ``gt_sem_seg`` are counted and left out. If there are no labels at all, ``evaluate`` says so and
    returns no scores.

    Frames of a video with the flow between them (`FramesWithFlow`, the protocol ``video``) are scored as well by how
    steady each head and each finer level is, `TemporalCounts`, with labels or without: ``<name>/TC`` and
    ``<name>/changes``.

    Args:
        ignore_index: Label of the pixels that are left out.
        heads: Field of the data sample -> name in the scores, or (name, matching). Default: ``pred_sem_seg`` is
            ``probe``, ``pred_linear`` is ``linear`` (identity), ``pred_level1`` is ``level1``.
        matching: How clusters come to classes in the heads that do not say: ``'hungarian'`` (one to one, that of the
            papers), ``'majority'`` (many to one) or ``'identity'``.
        num_clusters: Number of clusters of all heads, or field -> number. Default: those given to `use_cluster_sizes`,
            else the number of classes. Pixels of the clusters that find no class count as misses.
        assignment: Fitted elsewhere, applied here in place of a matching (identity heads aside): a file that
            ``fit_assignment.py`` or a validation wrote, field -> class of each cluster, or ``'checkpoint'`` for the one
            that the model carries.
        absent: What a class without ground truth counts as, see `scores_from_confusion`.
        legacy: Drop the pixels of clusters numbered K and beyond before anything else, as the published metric does.
        bootstrap: Resamples of the images for 95 % intervals of mIoU and aAcc, with a matching of their own each; 0
            for none.
        bootstrap_seed: See `PoissonBootstrap`.
        output_dir: Folder for the ``pred_sem_seg`` of each image as ``<image stem>.png``, uint8.
        output: What is written there: ``'classes'`` (255 for a cluster without one), ``'clusters'``, or ``'auto'``:
            classes where ``assignment`` or the model has them.
        keep_results: Accepted because mmseg's ``test.py --out`` sets it; the written predictions are always kept.
        format_only: Write the predictions only and return no scores. Needs ``output_dir``.
        collect_device: mmengine's, ``'cpu'`` or ``'gpu'``. Without effect: the matrices are reduced on the device of
            the communication back end.
        prefix: Put before every name, ``<prefix>/probe/mIoU``.

    Attributes:
        last_result: Name -> :class:`SegmentationScores` of the latest evaluation (per-class IoU, assignment, counts).
        last_intervals: Name -> lower and upper end of ``mIoU`` and ``aAcc``, with ``bootstrap``.
        last_assignment: Field -> class of each cluster, of the matched heads and, by majority, of the finer levels.
    """

    default_prefix = ''

    @ranges(ignore_index=FINITE, num_clusters=SIZE, bootstrap='[0, 100000]', bootstrap_seed=STEPS)
    def __init__(
        self,
        ignore_index: int = IGNORED_LABEL,
        heads: Mapping[str, str | Sequence[str]] | None = None,
        matching: str = 'hungarian',
        num_clusters: int | Mapping[str, int] | None = None,
        assignment: AssignmentSource | None = None,
        absent: str = 'zero_if_predicted',
        legacy: bool = False,
        bootstrap: int = 0,
        bootstrap_seed: int = 0,
        output_dir: str | None = None,
        output: str = 'auto',
        keep_results: bool = False,
        format_only: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.heads = checked_heads(heads, matching)
        for key, value, accepted in (('absent', absent, ABSENT_RULES), ('output', output, OUTPUTS)):
            if value not in accepted:
                raise ValueError(f'{key} must be one of {accepted}; got {value!r}')
        if format_only and output_dir is None:
            raise ValueError('format_only=True writes predictions and nothing else, so it needs output_dir')
        self.ignore_index = ignore_index
        self.num_clusters = num_clusters
        self.from_checkpoint = assignment == FROM_CHECKPOINT
        self.assignment: dict[str, np.ndarray] = {}
        if assignment is not None and not self.from_checkpoint:
            self.assignment = read_assignment(assignment)
        self.applied = None if assignment is None else _described(assignment)
        self.absent = absent
        self.legacy = legacy
        self.bootstrap = PoissonBootstrap(bootstrap, bootstrap_seed)
        self.writer = None if output_dir is None else LabelMapWriter(output_dir)
        self.output = output
        self.keep_results = keep_results
        self.format_only = format_only
        self.cluster_sizes: dict[str, int] = {}
        self.last_result: dict[str, SegmentationScores] = {}
        self.last_intervals: dict[str, dict[str, tuple[float, float]]] = {}
        self.last_assignment: dict[str, np.ndarray] = {}
        self._stored: Mapping[str, Sequence[int]] = {}
        self._reset()

    def use_cluster_sizes(self, sizes: Mapping[str, int]) -> None:
        """Take how many clusters the model predicts per field; ``num_clusters`` goes before it.

        Fields that are no heads (finer levels) are counted, too, for ``last_assignment``.
        """
        self.cluster_sizes = dict(sizes)
        self._reset()

    def score_names(self, absent: Sequence[str] = ()) -> list[str]:
        """Names of the scores that `evaluate` gives where there are labels.

        Args:
            absent: Fields that the model does not predict.
        """
        names = []
        for field, (name, matching) in self.heads.items():
            figures = ['mIoU', 'aAcc'] + ['NMI', 'ARI'] * (matching != 'identity')
            figures += ['mIoU_low', 'mIoU_high', 'aAcc_low', 'aAcc_high'] * bool(self.bootstrap.resamples)
            names += [f'{name}/{figure}' for figure in figures if field not in absent]
        return [f'{self.prefix}/{name}' if self.prefix else name for name in names]

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch and write its predictions if asked to.

        Args:
            data_batch: Not used.
            data_samples: Data samples as dictionaries, with the fields of ``heads`` and, where known, ``gt_sem_seg``.

        Raises:
            ValueError: Sizes of prediction and label differ, or a value is out of range; names the image.
        """
        for sample in data_samples:
            self._stored = self._stored or sample.get(META_KEY) or {}
            if self.writer is not None:
                self.writer.write(sample, self._painting(sample))
            if not self.format_only:
                self._add(sample)
                if SEQUENCE in sample:
                    self._add_frame(sample)

    def evaluate(self, size: int) -> dict[str, float]:
        """Reduce over the ranks, score, log and start afresh.

        Args:
            size: Number of images of the data set. A sampler that rounds up repeats images as the last one of some
                ranks; those are left out.

        Returns:
            Per head ``<name>/mIoU`` and ``<name>/aAcc`` (with ``bootstrap`` also their ``_low`` and ``_high``) and, of
            clusters, ``<name>/NMI`` and ``<name>/ARI``, in percent, the same on every rank; empty without labels.

        Raises:
            ValueError: The data set is empty, no sample has a field of ``heads``, or ``assignment`` lacks a head.
        """
        try:
            if size == 0:
                raise ValueError('the data set is empty, nothing can be scored; check data_root, split and ann_file')
            if self.writer is not None:
                self.writer.report()
            if self.format_only:
                return {}
            counts, seen, num_labelled, num_unlabelled = self._reduced(size)
            steady = self._frames.scores({field: name for field, (name, _) in self.heads.items()}, self.prefix)
            if self.from_checkpoint:
                stored: dict[str, Any] = next(filter(None, all_gather_object(self._stored)), {})
                self.assignment = read_assignment(stored) if stored else {}
        finally:
            self._reset()

        self.last_result, self.last_intervals, self.last_assignment = {}, {}, {}
        if num_labelled and not any(seen[field] for field in self.heads):
            raise ValueError(f'no labelled sample has a field of {list(self.heads)}; set heads to the fields it has')
        logger = MMLogger.get_current_instance()
        if num_labelled == 0 or not any(sums[..., 0].any() for sums in counts.values()):
            logger.warning(
                f'no labels: scores are unavailable ({num_labelled + num_unlabelled} images predicted, '
                f'{num_labelled} of them with a label file, none with a labelled pixel)'
            )
            return steady
        if num_unlabelled:
            logger.warning(f'scores cover {num_labelled} images; {num_unlabelled} more have no label and are left out')
        metrics = self.compute_metrics([(field, sums) for field, sums in counts.items() if seen[field]])
        return {f'{self.prefix}/{key}' if self.prefix else key: value for key, value in metrics.items()} | steady

    def compute_metrics(self, results: list[tuple[str, np.ndarray]]) -> dict[str, float]:
        """Score and log each head.

        Args:
            results: Field and counts (clusters, classes, 1 + B), summed over the ranks: first those of the data set,
                then those of the bootstrap's resamples.

        Returns:
            See `evaluate`.
        """
        metrics: dict[str, float] = {}
        for field, sums in results:
            if field in self.heads:
                metrics.update(self._score(field, sums))
            else:
                self.last_assignment[field] = majority_assignment(sums[..., 0])
        return metrics

    def _score(self, field: str, sums: np.ndarray) -> dict[str, float]:
        name, matching = self.heads[field]
        counts = without_extra_clusters(sums[..., 0]) if self.legacy else sums[..., 0]
        scores = self._scores(field, counts)
        self.last_result[name] = scores
        metrics = {f'{name}/mIoU': scores.mean_iou, f'{name}/aAcc': scores.pixel_accuracy}
        if self.bootstrap.resamples:
            intervals = self._intervals(field, np.moveaxis(sums[..., 1:], -1, 0))
            self.last_intervals[name] = intervals
            for key, (low, high) in intervals.items():
                metrics |= {f'{name}/{key}_low': low, f'{name}/{key}_high': high}
        if matching != 'identity':
            self.last_assignment[field] = scores.assignment
            metrics[f'{name}/NMI'] = 100 * normalised_mutual_information(counts)
            metrics[f'{name}/ARI'] = 100 * adjusted_rand_index(counts)
            if self.applied is not None:
                matching = f'assignment of {self.applied}'
        logger = MMLogger.get_current_instance()
        logger.info(describe_scores(name, matching, scores, self._classes, self.last_intervals.get(name)))
        total = int(sums[..., 0].sum())
        dropped = total - int(counts.sum())
        if dropped:
            logger.warning(
                f'{name}: legacy=True drops {dropped} pixels ({dropped / total:.2%}) of extra clusters, so '
                'that these scores compare with published ones only'
            )
        return metrics

    def _scores(self, field: str, counts: np.ndarray) -> SegmentationScores:
        name, matching = self.heads[field]
        if self.applied is None or matching == 'identity':
            return scores_from_confusion(counts, match_clusters(counts, matching), self.absent)
        if field not in self.assignment:
            if self.from_checkpoint:
                raise ValueError(missing_assignment(field))
            raise ValueError(
                f'the assignment of {self.applied} has {", ".join(self.assignment)} but not {field}, which is scored '
                f'as {name}; fit it with the same model, or leave {field} out of heads'
            )
        return scores_from_confusion(counts, self.assignment[field], self.absent)

    def _intervals(self, field: str, resampled: np.ndarray) -> dict[str, tuple[float, float]]:
        if self.legacy:
            resampled = np.stack([without_extra_clusters(counts) for counts in resampled])
        scores = [self._scores(field, counts) for counts in resampled]
        return dict(
            mIoU=percentile_interval([each.mean_iou for each in scores], CONFIDENCE),
            aAcc=percentile_interval([each.pixel_accuracy for each in scores], CONFIDENCE),
        )

    def _painting(self, sample: Mapping[str, Any]) -> Sequence[int] | np.ndarray | None:
        """Class of each cluster of ``pred_sem_seg`` for the written maps; None for cluster numbers."""
        if self.output == 'clusters':
            return None
        classes = (sample.get(META_KEY) or {}).get('pred_sem_seg')
        if not self.from_checkpoint:
            classes = self.assignment.get('pred_sem_seg', classes)
        if classes is None and self.output == 'classes':
            raise ValueError(f"output='classes': {missing_assignment('pred_sem_seg')}")
        return classes

    @property
    def _classes(self) -> Sequence[str]:
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError(
                "the data set names no classes: give it metainfo=dict(classes=(...)) so that the scores' size is known"
            )
        return classes

    @property
    def _fields(self) -> list[str]:
        """The heads' fields and those that are counted for their assignment only."""
        return [*self.heads, *(field for field in self.cluster_sizes if field not in self.heads)]

    def _shape(self, field: str) -> tuple[int, int]:
        num_classes = len(self._classes)
        clusters = self.num_clusters
        if isinstance(clusters, Mapping):
            clusters = clusters.get(field)
        elif field not in self.heads:
            clusters = None
        if clusters is None:
            clusters = self.cluster_sizes.get(field, num_classes)
        return clusters, num_classes

    def _reset(self) -> None:
        self._counts: dict[str, np.ndarray] = {}
        self._latest: dict[str, np.ndarray] = {}
        self._seen = dict.fromkeys(self._fields, 0)
        self._labelled = [0, 0]  # without, with
        self._latest_labelled: bool | None = None
        self._latest_name = ''
        self._num_processed = 0
        self._stored = {}
        self._frames = TemporalCounts()

    def _add(self, sample: Mapping[str, Any]) -> None:
        # The latest image is counted when the next one comes: it may be a sampler's repetition, which is known from the
        # data set's size in `evaluate` only.
        self._count_latest()
        rank, world_size = get_dist_info()
        self._latest_name = str(sample.get('img_path') or self._num_processed * world_size + rank)
        self._num_processed += 1
        self._latest_labelled = 'gt_sem_seg' in sample
        if not self._latest_labelled:
            return
        target = sample['gt_sem_seg']['data'].squeeze(0)
        for field in self._fields:
            if field not in sample:
                continue
            num_predicted, num_classes = self._shape(field)
            pred = sample[field]['data'].squeeze(0)
            try:
                self._latest[field] = confusion_matrix(pred, target, num_predicted, num_classes, self.ignore_index)
            except ValueError as error:
                label = f' (label {sample["seg_map_path"]})' if sample.get('seg_map_path') else ''
                raise ValueError(f'{sample.get("img_path", "an image")}{label}, {field}: {error}') from error

    def _add_frame(self, sample: Mapping[str, Any]) -> None:
        if get_dist_info()[1] > 1:
            raise ValueError('frames of a video are scored in their order, by one process; test without a launcher')
        self._frames.add(sample, {field: self._shape(field)[0] for field in self._fields})

    def _count_latest(self) -> None:
        if self._latest_labelled is not None:
            self._labelled[int(self._latest_labelled)] += 1
        for field, counts in self._latest.items():
            if field not in self._counts:
                self._counts[field] = self._sums(field).zeros(*counts.shape)
            self._sums(field).add(self._counts[field], counts, self._latest_name)
            self._seen[field] += 1
        self._latest, self._latest_labelled = {}, None

    def _sums(self, field: str) -> PoissonBootstrap:
        return self.bootstrap if field in self.heads else _NO_BOOTSTRAP

    def _reduced(self, size: int) -> tuple[dict[str, np.ndarray], dict[str, int], int, int]:
        """Sum counts, samples per head and numbers of labelled and unlabelled images over the ranks, in one call."""
        rank, world_size = get_dist_info()
        rounded_up = self._num_processed == -(-size // world_size)
        if not (rounded_up and (self._num_processed - 1) * world_size + rank >= size):
            self._count_latest()

        empty = {field: self._sums(field).zeros(*self._shape(field)) for field in self._fields}
        sums = [self._counts.get(field, zeros) for field, zeros in empty.items()]
        summary = np.array([*self._seen.values(), *self._labelled], dtype=np.int64)
        flat = torch.from_numpy(np.concatenate([*(each.ravel() for each in sums), summary]))
        all_reduce(flat)

        *parts, rest = np.split(flat.numpy(), np.cumsum([each.size for each in sums]))
        counts = {field: part.reshape(empty[field].shape) for field, part in zip(empty, parts, strict=True)}
        *seen, num_unlabelled, num_labelled = rest.tolist()
        return counts, dict(zip(self._seen, seen, strict=True)), num_labelled, num_unlabelled


_NO_BOOTSTRAP = PoissonBootstrap()


def _described(assignment: AssignmentSource) -> str:
    if assignment == FROM_CHECKPOINT:
        return 'the checkpoint'
    return 'the config' if isinstance(assignment, Mapping) else str(assignment)
