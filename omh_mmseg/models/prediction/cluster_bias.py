"""What a closing refit adds to the scores of clusters, kept with the weights of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ClusterBias(nn.Module):
    """A bias per cluster, by field of the data sample, as buffers of a segmentor.

    A pixel with code z belongs to the cluster with the largest ``<z, C_k> + |z| b_k``, C_k the unit centre and b_k the
    bias (docs/methods/evaluation.md 6.7). Fields that were never refitted have none; their weights are then those of a
    model without this module.

    Args:
        sizes: Field of the data sample -> number of clusters.
    """

    place: Tensor

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        # Where a loaded bias goes: without one, no other tensor of this module says on which device the model is.
        self.register_buffer('place', torch.empty(0), persistent=False)
        self.forget()

    def of(self, field: str) -> Tensor | None:
        """Bias (K) of a field; None without one."""
        return self._buffers.get(field)

    def set(self, field: str, bias: Tensor) -> None:
        """Take over a bias (K); one of zeros only is none.

        Raises:
            ValueError: Unknown field, or another number of clusters.
        """
        if bias.shape != (self.sizes.get(field),):
            raise ValueError(
                f'the bias of {field} has shape {tuple(bias.shape)}; the fields and their clusters are {self.sizes}'
            )
        self._buffers[field] = bias.detach().clone() if bool((bias != 0).any()) else None

    def forget(self) -> None:
        """Leave no field a bias."""
        for field in self.sizes:
            self.register_buffer(field, None)

    def add(self, field: str, cosines: Tensor) -> Tensor:
        """Cosines (B, K, h, w) with the bias of a field."""
        bias = self.of(field)
        return cosines if bias is None else cosines + bias.to(cosines)[:, None, None]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for field, size in self.sizes.items():
            given = state_dict.get(prefix + field)
            self._buffers[field] = None if given is None else self.place.new_zeros(size, dtype=given.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args)


def counts_length(model: Any, field: str) -> bool:
    """Whether the scores of a field are dot products with its centres as they are, and not cosines."""
    return field == 'pred_sem_seg' and getattr(model.cluster_probe, 'lengths_count', False)


def clusterings(model: Any) -> dict[str, Tensor]:
    """Centres (K, D) of all clusterings of a segmentor, by the field of the data sample that they predict."""
    levels = [] if model.omh_head is None else list(model.omh_head.centres)
    found = dict(pred_sem_seg=model.cluster_probe.centres)
    return found | {f'pred_level{number}': centres for number, centres in enumerate(levels, 1)}
