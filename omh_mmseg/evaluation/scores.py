"""Matching of clusters to classes and the scores that follow (docs/methods/evaluation.md 6.6).

Count matrices have predicted clusters as rows and true classes as columns, are accumulated over a whole data set and
hold every pixel that has a label. A pixel that is predicted as a cluster without a class is a miss for its true class;
only `without_extra_clusters` drops pixels, to reproduce the published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from omh_mmseg.choices import MATCHINGS
from omh_mmseg.structures.assignment import UNMATCHED
from omh_mmseg.structures.labels import IGNORED_LABEL

"""Ways from clusters to classes: one to one, many to one, and number k is class k."""
ABSENT_RULES = ('zero_if_predicted', 'leave_out')
"""What a class without ground truth counts as; see `scores_from_confusion`."""


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of one count matrix, in percent.

    Attributes:
        mean_iou: Mean of ``iou`` over the classes where it is not NaN.
        pixel_accuracy: Share of the labelled pixels whose cluster has their class.
        iou: (K,) intersection over union per class; NaN for a class that does not count.
        accuracy: (K,) share of each class's pixels that are found; NaN without ground truth.
        assignment: (num_predicted,) class of each cluster, ``UNMATCHED`` for those left over.
        counts: (num_predicted, K) the count matrix.
    """

    mean_iou: float
    pixel_accuracy: float
    iou: np.ndarray
    accuracy: np.ndarray
    assignment: np.ndarray
    counts: np.ndarray

    @property
    def absent(self) -> list[int]:
        """Classes without a single ground-truth pixel."""
        return np.flatnonzero(self.counts.sum(axis=0) == 0).tolist()


def confusion_matrix(
    pred: np.ndarray | torch.Tensor,
    target: np.ndarray | torch.Tensor,
    num_predicted: int,
    num_classes: int,
    ignore_index: int = IGNORED_LABEL,
) -> np.ndarray:
    """Count how often each cluster meets each class.

    The counting runs on the device of ``pred``; only the matrix leaves it.

    Args:
        pred: Integer cluster numbers of any shape, each in ``0..num_predicted - 1`` wherever there is a label.
        target: Integer labels of the same shape, each in ``0..num_classes - 1`` or ``ignore_index``.
        num_predicted: Number of clusters.
        num_classes: Number of classes.
        ignore_index: Label of the pixels that are left out.

    Returns:
        int64 (num_predicted, num_classes): rows predicted, columns true.

    Raises:
        ValueError: Shapes differ, or a value lies outside its range.
    """
    pred, target = _as_int64(pred), _as_int64(target)
    if pred.shape != target.shape:
        raise ValueError(
            f'the prediction has shape {tuple(pred.shape)} but the label has shape {tuple(target.shape)}; predict at '
            'the size of the label, or resize both in the test pipeline'
        )
    target = target.to(pred.device)
    # Filling in zeros and counting ignored pixels in a bin of their own is faster than leaving them out.
    ignored = target == ignore_index
    pred, target = pred.masked_fill(ignored, 0), target.masked_fill(ignored, 0)
    _check_range('label', target, num_classes, f' or {ignore_index} (ignored)')
    _check_range('predicted cluster', pred, num_predicted, "; give the metric the model's number as num_clusters")
    size = num_predicted * num_classes
    joint = torch.add(target, pred, alpha=num_classes).masked_fill_(ignored, size)
    counts = torch.bincount(joint.flatten(), minlength=size + 1)[:size]
    return counts.reshape(num_predicted, num_classes).cpu().numpy()


def hungarian_assignment(counts: np.ndarray) -> np.ndarray:
    """Match clusters to classes one to one so that the most pixels agree.

    Args:
        counts: (num_predicted, num_classes). With more clusters than classes the best ``num_classes`` of them are
            matched; with fewer, some classes get no cluster.

    Returns:
        int64 (num_predicted,): class of each cluster, ``UNMATCHED`` for those left over.
    """
    counts = _as_counts(counts)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    assignment = np.full(counts.shape[0], UNMATCHED, dtype=np.int64)
    assignment[rows] = columns
    return assignment


def majority_assignment(counts: np.ndarray) -> np.ndarray:
    """Give each cluster the class that most of its pixels have, many to one.

    Classes may get several clusters or none. With more clusters the scores rise by themselves, so they compare only at
    equal numbers of clusters.

    Args:
        counts: (num_predicted, num_classes).

    Returns:
        int64 (num_predicted,): class of each cluster, the first of equal ones; ``UNMATCHED`` for one without a pixel.
    """
    counts = _as_counts(counts)
    return np.where(counts.any(axis=1), counts.argmax(axis=1), UNMATCHED)


def identity_assignment(num_predicted: int, num_classes: int) -> np.ndarray:
    """Assign number k to class k, as for a head that predicts classes already; numbers beyond are unmatched."""
    assignment = np.arange(num_predicted)
    return np.where(assignment < num_classes, assignment, UNMATCHED)


def match_clusters(counts: np.ndarray, matching: str) -> np.ndarray:
    """Class of each cluster, int64 (num_predicted,), by one of ``MATCHINGS``."""
    if matching == 'hungarian':
        return hungarian_assignment(counts)
    if matching == 'majority':
        return majority_assignment(counts)
    if matching == 'identity':
        return identity_assignment(*np.shape(counts))
    raise ValueError(f'matching must be one of {MATCHINGS}; got {matching!r}')


def without_extra_clusters(counts: np.ndarray) -> np.ndarray:
    """Drop the pixels of clusters numbered ``num_classes`` and beyond, as the published metric does.

    An over-clustering model looks better for it: pixels that it puts into an extra cluster count neither as found nor
    as missed (docs/methods/evaluation.md 6.6). Use it for comparison with published numbers only.

    Args:
        counts: (num_predicted, num_classes).

    Returns:
        A copy of the same shape with zeros in the rows of the extra clusters.
    """
    counts = _as_counts(counts).copy()
    counts[counts.shape[1] :] = 0
    return counts


def scores_from_confusion(
    counts: np.ndarray, assignment: np.ndarray | Sequence[int] | None = None, absent: str = 'zero_if_predicted'
) -> SegmentationScores:
    """Scores of a count matrix under an assignment of clusters to classes.

    With TP, FP and FN per class, IoU = TP / (TP + FP + FN). Pixels of unmatched clusters are FN of their true class and
    FP of none; the pixel accuracy is sum TP over *all* counted pixels.

    Args:
        counts: (num_predicted, num_classes), rows predicted, columns true.
        assignment: (num_predicted,) class of each cluster, ``UNMATCHED`` for none; several clusters may have one
            class. Default: number k is class k.
        absent: Rule for a class without ground truth. ``'zero_if_predicted'``, that of docs/methods/evaluation.md 6.6:
            it counts as 0 where a cluster with this class predicts anything, and not at all otherwise. ``'leave_out'``:
            it never counts.

    Returns:
        The scores; means are NaN where nothing was counted.

    Raises:
        ValueError: The assignment has the wrong length or an unknown class, or the rule is unknown.
    """
    if absent not in ABSENT_RULES:
        raise ValueError(f'absent must be one of {ABSENT_RULES}; got {absent!r}')
    counts = _as_counts(counts)
    num_predicted, num_classes = counts.shape
    if assignment is None:
        assignment = identity_assignment(num_predicted, num_classes)
    assignment = np.asarray(assignment, dtype=np.int64)
    matched = assignment != UNMATCHED
    classes = assignment[matched] if assignment.shape == (num_predicted,) else np.array([num_classes])
    if ((classes < 0) | (classes >= num_classes)).any():
        raise ValueError(
            f'assignment {assignment.tolist()} does not fit a {num_predicted} x {num_classes} count matrix: it needs '
            f'one entry per cluster, each a class in 0..{num_classes - 1} or {UNMATCHED} for none'
        )

    by_class = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(by_class, classes, counts[matched])
    true_positive, predicted = by_class.diagonal(), by_class.sum(axis=1)
    ground_truth = counts.sum(axis=0)
    iou = _percent(true_positive, predicted + ground_truth - true_positive)
    if absent == 'leave_out':
        iou[ground_truth == 0] = np.nan
    return SegmentationScores(
        mean_iou=float(np.nanmean(iou)) if not np.isnan(iou).all() else float('nan'),
        pixel_accuracy=float(_percent(true_positive.sum(), counts.sum())),
        iou=iou,
        accuracy=_percent(true_positive, ground_truth),
        assignment=assignment,
        counts=counts,
    )


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid='ignore'):
        return 100.0 * np.asarray(part, dtype=np.float64) / np.asarray(whole, dtype=np.float64)


def _as_int64(values: np.ndarray | torch.Tensor) -> torch.Tensor:
    if not isinstance(values, torch.Tensor):
        values = torch.from_numpy(np.array(values))
    if values.is_floating_point() or values.is_complex():
        raise ValueError(f'cluster numbers and labels must be integers, got {values.dtype}; take the argmax first')
    return values.long()


def _as_counts(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.ndim != 2 or 0 in counts.shape or counts.dtype.kind not in 'iu' or (counts < 0).any():
        raise ValueError(
            'a count matrix holds non-negative integers of shape (clusters, classes), got '
            f'{counts.dtype} {counts.shape}'
        )
    return counts.astype(np.int64)


def _check_range(what: str, values: torch.Tensor, limit: int, also: str = '') -> None:
    if not values.numel():
        return
    low, high = torch.aminmax(values)
    if low < 0 or high >= limit:
        seen = torch.unique(values[(values < 0) | (values >= limit)]).tolist()
        listed = ', '.join(map(str, seen[:5])) + (f', ... ({len(seen)} values)' if len(seen) > 5 else '')
        raise ValueError(f'{what} value {listed} is not accepted: it must be in 0..{limit - 1}{also}')


def normalised_mutual_information(counts: np.ndarray) -> float:
    """Mutual information of cluster and class, over the mean of their entropies.

    NMI = 2 I(U; V) / (H(U) + H(V)), with the shares of pixels as probabilities.

    Args:
        counts: (clusters, classes), pixels of each pair.

    Returns:
        In [0, 1]: 0 for independent ones, 1 for a permutation (and for a single cluster and class). NaN without a
        pixel.

    Source: Strehl and Ghosh, Cluster ensembles, JMLR 3, 2002; normalisation by the arithmetic mean.
    """
    from scipy.stats import entropy  # takes as long to import as everything else here

    joint = np.asarray(counts, dtype=np.float64)
    if joint.sum() == 0:
        return float('nan')
    entropies = float(entropy(joint.sum(axis=1)) + entropy(joint.sum(axis=0)))
    if entropies == 0:
        return 1.0
    information = entropies - float(entropy(joint, axis=None))
    return float(np.clip(2 * information / entropies, 0, 1))


def adjusted_rand_index(counts: np.ndarray) -> float:
    """Share of pixel pairs that clusters and classes treat alike, corrected for chance.

    ARI = (S - E) / (M - E) with S the pairs that are together in both, E their expectation for random clusters of the
    same sizes and M the mean of the pairs together in either.

    Args:
        counts: (clusters, classes), pixels of each pair.

    Returns:
        At most 1; 0 by chance. NaN without a pixel.

    Source: Hubert and Arabie, Comparing partitions, Journal of Classification 2, 1985.
    """
    # Python's integers: the pairs of a whole data set exceed 64 bits once multiplied.
    exact = np.asarray(counts).astype(object)
    total = exact.sum()
    if total == 0:
        return float('nan')
    together, by_cluster, by_class = (
        sum(n * (n - 1) for n in group) for group in (exact.ravel(), exact.sum(axis=1), exact.sum(axis=0))
    )
    pairs = total * (total - 1)
    # Both sides of the fraction times 2 * pairs.
    numerator = 2 * (together * pairs - by_cluster * by_class)
    denominator = (by_cluster + by_class) * pairs - 2 * by_cluster * by_class
    return 1.0 if denominator == 0 else numerator / denominator
