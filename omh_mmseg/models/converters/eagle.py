"""EAGLE's published Lightning checkpoints as checkpoints of our `EAGLE`.

Source: docs/methods/eagle.md 2, 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omh_mmseg.models.converters.dino import ConvertedHost, listed, split_backbone

BACKBONE = 'net.model.'
BLOCKS = 3
RENAMED = {
    'net.cluster1.0.weight': 'decode_head.linear.weight',
    'net.cluster1.0.bias': 'decode_head.linear.bias',
    'net.cluster2.0.weight': 'decode_head.nonlinear.0.weight',
    'net.cluster2.0.bias': 'decode_head.nonlinear.0.bias',
    'net.cluster2.2.weight': 'decode_head.nonlinear.2.weight',
    'net.cluster2.2.bias': 'decode_head.nonlinear.2.bias',
    'cluster_probe.clusters': 'cluster_probe.centres',
    'linear_probe.weight': 'linear_probe.classifier.weight',
    'linear_probe.bias': 'linear_probe.classifier.bias',
}
# What training alone needs.
OPTIONAL = {
    'project_head.weight': 'project_head.weight',
    'project_head.bias': 'project_head.bias',
    'train_cluster_probe_eigen.clusters': 'eigen_lookups.0.centres',
    'train_cluster_probe_eigen_aug.clusters': 'eigen_lookups.1.centres',
}
# Parts of the reference that nothing trains or evaluates (docs/methods/eagle.md 2).
LEFT_OUT = ('train_cluster_probe.', 'decoder.', 'CELoss.')


@dataclass(frozen=True)
class ConvertedEAGLE(ConvertedHost):
    """A converted checkpoint.

    Attributes:
        extra_clusters: Clusters of the cluster probe beyond the K.
        left_out: Names of the entries that our model has no place for.
    """

    extra_clusters: int
    left_out: list[str]


def convert_eagle_checkpoint(content: Any, source: str) -> ConvertedEAGLE:
    """Convert the content of a Lightning checkpoint.

    Args:
        content: From `read_foreign_checkpoint`.
        source: Name of the file, for messages.

    Raises:
        ValueError: If it is no checkpoint of EAGLE; entries that are missing, left over or of a wrong shape are named.
    """
    named = content.get('state_dict') if isinstance(content, Mapping) else None
    if not isinstance(named, Mapping) or not any(key.startswith(BACKBONE) for key in named):
        holds = listed(named if isinstance(named, Mapping) else content if isinstance(content, Mapping) else [])
        raise ValueError(f"{source} is not a checkpoint of EAGLE, whose state_dict has '{BACKBONE}*'; found: {holds}.")
    state, shape, others = split_backbone(named, BACKBONE, source)
    left_out = [key for key in others if key.startswith(LEFT_OUT)]
    remaining = {key: value for key, value in others.items() if key not in left_out}
    parts: dict[str, Tensor] = {}
    for theirs, ours in (RENAMED | OPTIONAL).items():
        value = remaining.pop(theirs, None)
        if isinstance(value, Tensor):
            parts[ours] = value
        elif theirs in RENAMED:
            raise ValueError(f'{source} holds no tensor {theirs}, and is no checkpoint of EAGLE.')
    if remaining:
        raise ValueError(f'{source} has entries without a counterpart in our EAGLE: {listed(remaining)}.')
    clusters, channels = parts['cluster_probe.centres'].shape
    classes, width = len(parts['linear_probe.classifier.weight']), BLOCKS * shape.embed_dims
    sizes = {
        'decode_head.linear': (channels, width, 1, 1), 'decode_head.nonlinear.0': (width, width, 1, 1),
        'decode_head.nonlinear.2': (channels, width, 1, 1), 'linear_probe.classifier': (classes, channels, 1, 1),
        'project_head': (channels, channels),
    }  # fmt: skip
    wanted = {f'{name}.weight': size for name, size in sizes.items()}
    wanted |= {f'{name}.bias': size[:1] for name, size in sizes.items()}
    wanted |= {ours: (clusters, 3) for ours in OPTIONAL.values() if ours.startswith('eigen')}
    wrong = [
        f'{name} is {tuple(value.shape)}, not {wanted[name]}'
        for name, value in parts.items()
        if name in wanted and tuple(value.shape) != wanted[name]
    ]
    if wrong or clusters < classes:
        wrong += [f'there are {clusters} clusters for {classes} classes'] if clusters < classes else []
        raise ValueError(
            f'The parts of {source} do not fit each other: {"; ".join(wrong)} (in the names of our EAGLE).'
        )
    # Lightning of the reference's environment counts batches (docs/methods/eagle.md 9.9).
    steps = content.get('global_step', 0)
    state |= parts | dict(iteration=torch.tensor(steps if isinstance(steps, int) else 0, dtype=torch.long))
    return ConvertedEAGLE(state, shape, channels, classes, clusters - classes, left_out)
