"""EAGLE's published Lightning checkpoints as checkpoints of our `EAGLE`.

Source: docs/methods/eagle.md 2, 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from omh_mmseg.models.converters.dino import ConvertedHost, check_shapes, listed, sized, split_backbone, training_steps
from omh_mmseg.models.converters.stego import BACKBONE, CLUSTERS, LAYERS

BLOCKS = 3
RENAMED = {CLUSTERS: 'cluster_probe.centres'}
RENAMED |= {theirs + kind: ours + kind for theirs, ours in LAYERS.items() for kind in ('weight', 'bias')}
# What training alone needs.
OPTIONAL = {
    'project_head.weight': 'project_head.weight',
    'project_head.bias': 'project_head.bias',
    'train_cluster_probe_eigen.clusters': 'eigen_lookups.0.centres',
    'train_cluster_probe_eigen_aug.clusters': 'eigen_lookups.1.centres',
}
# Parts of the reference that nothing trains or evaluates (docs/methods/eagle.md 2).
LEFT_OUT = ('train_cluster_probe.', 'decoder.', 'CELoss.')


def convert_eagle_checkpoint(content: Any, source: str) -> ConvertedHost:
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
    optional = OPTIONAL if any(key in remaining for key in OPTIONAL) else {}
    for theirs, ours in (RENAMED | optional).items():
        value = remaining.pop(theirs, None)
        if not isinstance(value, Tensor):
            raise ValueError(f'{source} holds no tensor {theirs}, and is no checkpoint of EAGLE.')
        parts[ours] = value
    if remaining:
        raise ValueError(f'{source} has entries without a counterpart in our EAGLE: {listed(remaining)}.')
    clusters, channels = sized(parts, 'cluster_probe.centres', 2, source)
    classes, width = sized(parts, 'linear_probe.classifier.weight', 4, source)[0], BLOCKS * shape.embed_dims
    sizes = {
        'decode_head.linear': (channels, width, 1, 1), 'decode_head.nonlinear.0': (width, width, 1, 1),
        'decode_head.nonlinear.2': (channels, width, 1, 1), 'linear_probe.classifier': (classes, channels, 1, 1),
        'project_head': (channels, channels),
    }  # fmt: skip
    wanted = {f'{name}.weight': size for name, size in sizes.items()}
    wanted |= {f'{name}.bias': size[:1] for name, size in sizes.items()}
    eigen = [ours for ours in parts if ours.startswith('eigen')]
    if any(parts[ours].shape != (clusters, 3) for ours in eigen):
        # Of another number of eigenvectors or clusters: training alone needs them.
        left_out += [theirs for theirs, ours in OPTIONAL.items() if parts.pop(ours, None) is not None and ours in eigen]
    too_few = f'there are {clusters} clusters for {classes} classes' * (clusters < classes)
    too_few = too_few or f'{shape.depth} blocks, of which {BLOCKS} are used' * (shape.depth < BLOCKS)
    check_shapes(parts, wanted, source, 'our EAGLE', too_few)
    # Lightning of the reference's environment counts batches (docs/methods/eagle.md 9.9).
    state |= parts | dict(iteration=training_steps(content))
    return ConvertedHost(state, shape, channels, classes, clusters - classes, left_out)
