"""The classes that a model's clusters stand for, kept with its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from omh_mmseg.structures.assignment import CLUSTERS, META_KEY, UNMATCHED, AssignmentSource, read_assignment
from omh_mmseg.structures.labels import IGNORED_LABEL

UNKNOWN = -2
"""Entry of every cluster of a field that nothing has been assigned to yet."""


class ClusterAssignment(nn.Module):
    """Class of every cluster, by field of the data sample, as buffers of a segmentor.

    Cluster numbers mean nothing by themselves. A validation with labels matches them to classes; kept in the
    checkpoint, that assignment lets every later prediction be painted in classes. A checkpoint without one loads,
    strictly or not, and its fields stay unknown.

    Args:
        sizes: Field of the data sample -> number of clusters.
        given: Assignment set by hand, as a file or a mapping. It wins over the checkpoint's and over validations.

    Raises:
        ValueError: ``given`` has an unknown field or a wrong length.
    """

    def __init__(self, sizes: Mapping[str, int], given: AssignmentSource | None = None) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        for field, size in self.sizes.items():
            self.register_buffer(field, torch.full((size,), UNKNOWN, dtype=torch.long))
        self.fixed: frozenset[str] = frozenset()
        if given is not None:
            assignment = read_assignment(given)
            for field, classes in assignment.items():
                self.set(field, classes)
            self.fixed = frozenset(assignment)

    @property
    def known(self) -> list[str]:
        """Fields whose clusters have been assigned."""
        return [field for field in self.sizes if bool((self.get_buffer(field) != UNKNOWN).any())]

    def set(self, field: str, classes: Sequence[int] | np.ndarray | Tensor) -> None:
        """Assign classes to the clusters of a field.

        Args:
            field: One of ``sizes``.
            classes: Class of each cluster, -1 for none.

        Raises:
            ValueError: Unknown field, wrong length, or a value below -1.
        """
        if field not in self.sizes:
            raise ValueError(f'there is no {field} to assign classes to; the model predicts {", ".join(self.sizes)}')
        values = torch.as_tensor(classes)
        size = self.sizes[field]
        if values.shape != (size,) or values.is_floating_point() or bool((values < UNMATCHED).any()):
            raise ValueError(
                f'the assignment of {field} must hold {size} class numbers, one per cluster, {UNMATCHED} for none; '
                f'got {values.tolist()}'
            )
        self.get_buffer(field).copy_(values)

    def update(self, assignment: Mapping[str, Sequence[int] | np.ndarray]) -> list[str]:
        """Assign classes to all fields that the model has and that were not set by hand.

        Returns:
            The fields that were left as they are because they were set by hand.
        """
        for field, classes in assignment.items():
            if field in self.sizes and field not in self.fixed:
                self.set(field, classes)
        return sorted(self.fixed & assignment.keys())

    def forget(self, fields: Iterable[str] | None = None) -> None:
        """Make fields unknown that were not set by hand, all of them by default."""
        for field in set(self.sizes if fields is None else fields) - self.fixed:
            self.get_buffer(field).fill_(UNKNOWN)

    def as_dict(self) -> dict[str, list[int]]:
        """Class of each cluster by field, for the fields that are known."""
        return {field: self.get_buffer(field).tolist() for field in self.known}

    def annotate(self, samples: Iterable[SegDataSample]) -> None:
        """Put ``cluster_classes``, what `as_dict` returns, into the metadata of predicted samples.

        The predictions stay cluster numbers; visualiser and metric read the classes from there. An empty mapping says
        that they are clusters of which nothing is known.
        """
        assignment = self.as_dict()
        for sample in samples:
            sample.set_metainfo({META_KEY: assignment})

    def in_classes(self, samples: Sequence[SegDataSample]) -> Sequence[SegDataSample]:
        """Put classes into ``pred_sem_seg`` of predicted samples, where those of its clusters are known.

        Clusters without a class become 255, as pixels without a label. The cluster numbers are in ``pred_clusters``
        then. Samples with labels are left alone: metrics match their clusters.
        """
        field = 'pred_sem_seg'
        if field not in self.known:
            return samples
        table = self.get_buffer(field)
        table = torch.where(table == UNMATCHED, torch.full_like(table, IGNORED_LABEL), table)
        known = self.as_dict()
        known[CLUSTERS] = known.pop(field)
        for sample in samples:
            if 'gt_sem_seg' not in sample:
                clusters = sample.pred_sem_seg.data
                sample.set_field(PixelData(data=clusters), CLUSTERS, dtype=PixelData)
                sample.pred_sem_seg = PixelData(data=table.to(clusters.device)[clusters])
                sample.set_metainfo({META_KEY: known})
        return samples

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        absent = [field for field in self.sizes if prefix + field not in state_dict]
        kept = {prefix + field: self.get_buffer(field).clone() for field in {*absent, *self.fixed}}
        # Taken as present, so that neither a strict load fails nor a lax one warns of lost weights.
        super()._load_from_state_dict({**state_dict, **kept}, prefix, *args)
        if absent and not self.fixed.issuperset(absent):
            MMLogger.get_current_instance().info(
                f'the weights hold no classes for the clusters of {", ".join(absent)}: predictions are cluster numbers '
                'until a validation with labels has matched them'
            )
