"""PriMaPs-EM's Lightning checkpoints as checkpoints of our `PriMaPs`.

Source: docs/methods/primaps.md 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.models.converters.dino import ConvertedHost, check_shapes, listed, sized, split_backbone, training_steps

BACKBONE = 'net.model.'
RUNNING, MOMENTUM = 'seghead', 'cluster_probe.ema_model'
STEP = 'cluster_probe.step'
LEFT_OUT = ('cluster_probe.online_model.', 'cluster_probe.initted')


def convert_primaps_checkpoint(content: Any, source: str) -> ConvertedHost:
    """Convert the content of a checkpoint of the EM stage on a plain backbone.

    Args:
        content: From `read_foreign_checkpoint`.
        source: Name of the file, for messages.

    Raises:
        ValueError: If it is no such checkpoint; entries that are missing, left over or of the wrong shape are named.
    """
    entries = content.get('state_dict') if isinstance(content, Mapping) else None
    needed = [f'{part}.weight_{kind}' for part in (RUNNING, MOMENTUM) for kind in 'vg']
    needed += ['linear_probe.weight', 'linear_probe.bias']
    if not isinstance(entries, Mapping) or not all(isinstance(entries.get(key), Tensor) for key in needed):
        found = content if entries is None else entries
        holds = listed(found) if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(
            f'{source} is not a checkpoint of the EM stage of PriMaPs, with {", ".join(needed)}; found: {holds}.'
        )
    if not any(key.startswith(BACKBONE) for key in entries):
        raise ValueError(
            f"{source} has no backbone at '{BACKBONE}*': it was trained on top of another host, whose head is in "
            'another file, and cannot be converted.'
        )
    state, shape, others = split_backbone(entries, BACKBONE, source)
    classes, channels = sized(others, 'linear_probe.weight', 4, source)[:2]
    sizes: dict[str, tuple[int, ...]] = {key: (classes, 1 if key.endswith('_g') else channels, 1, 1) for key in needed}
    sizes['linear_probe.bias'] = (classes,)
    differing = f'prototypes of {channels} channels on {shape.embed_dims} features' * (channels != shape.embed_dims)
    check_shapes(others, sizes, source, 'the file', differing)
    values = {key: others.pop(key) for key in needed}
    # Of the average: it counts its updates.
    updates = others.pop(STEP, torch.zeros(1))
    if not isinstance(updates, Tensor) or updates.numel() != 1 or not updates >= 0:
        raise ValueError(f'{source}: {STEP} should count updates, and is {updates}.')
    left = [key for key in others if not key.startswith(LEFT_OUT)]
    if left:
        raise ValueError(f'{source} has entries without a counterpart in our PriMaPs: {listed(left)}.')
    directions, gains = (values[f'{MOMENTUM}.weight_{kind}'].flatten(1) for kind in 'vg')
    state |= {
        'cluster_probe.directions': values[f'{RUNNING}.weight_v'].flatten(1),
        'cluster_probe.gains': values[f'{RUNNING}.weight_g'].flatten(),
        'cluster_probe.average': torch.cat([directions, gains], dim=1),
        'cluster_probe.centres': gains * F.normalize(directions, dim=1),
        'cluster_probe.updates': updates.long().reshape(()),
        'cluster_probe.started': torch.tensor(True),
        'linear_probe.classifier.weight': values['linear_probe.weight'],
        'linear_probe.classifier.bias': values['linear_probe.bias'],
        'iteration': training_steps(content),
    }
    return ConvertedHost(state, shape, channels, classes)
