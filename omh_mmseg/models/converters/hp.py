"""HP's published checkpoints as checkpoints of our `HiddenPositives`.

Source: docs/methods/features.md 2, docs/methods/hp.md 2.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from omh_mmseg.models.converters.dino import ConvertedHost, listed, split_backbone, training_steps

NET, LINEAR, CLUSTER = (f'{part}_model_state_dict' for part in ('net', 'linear', 'cluster'))
BACKBONE = 'model.'
# The moving average takes one name per layer of the head, in the reference as in ours.
LAYERS = {
    'cluster1.0': 'decode_head.linear',
    'cluster2.0': 'decode_head.nonlinear.0',
    'cluster2.2': 'decode_head.nonlinear.2',
    'ema_model1.0': 'ema_head.module.linear',
    'ema_model2.0': 'ema_head.module.nonlinear.0',
    'ema_model2.2': 'ema_head.module.nonlinear.2',
}


def convert_hp_checkpoint(content: Any, source: str) -> ConvertedHost:
    """Convert the content of a checkpoint of the reference implementation.

    The reference stores neither the project head nor the reference pools: what is converted can be tested, and trained
    on from new ones, but no run can be resumed from it.

    Args:
        content: From `read_foreign_checkpoint`.
        source: Name of the file, for messages.

    Raises:
        ValueError: If it is no checkpoint of HP; entries that are missing, left over or of the wrong shape are named.
    """
    groups = (NET, LINEAR, CLUSTER)
    if not isinstance(content, Mapping) or not all(isinstance(content.get(key), Mapping) for key in groups):
        holds = listed(content) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f'{source} is not a checkpoint of HP, with {NET}, {LINEAR} and {CLUSTER}; found: {holds}.')
    state, shape, net = split_backbone(content[NET], BACKBONE, source)
    centres = content[CLUSTER].get('clusters')
    if not isinstance(centres, Tensor) or centres.dim() != 2:
        raise ValueError(f"{source} has no matrix of clusters at {CLUSTER}['clusters'].")
    num_classes, channels = centres.shape
    parts = {ours: (net, theirs) for theirs, ours in LAYERS.items()}
    parts['linear_probe.classifier'] = dict(content[LINEAR]), ''
    state['cluster_probe.centres'] = centres
    problems = []
    for ours, (group, theirs) in parts.items():
        width = channels if 'linear_probe' in ours else shape.embed_dims
        height = num_classes if 'linear_probe' in ours else shape.embed_dims if ours.endswith('.0') else channels
        for kind, size in (('weight', (height, width, 1, 1)), ('bias', (height,))):
            name = f'{theirs}.{kind}'.lstrip('.')
            value = group.pop(name, None)
            if not isinstance(value, Tensor) or tuple(value.shape) != size:
                is_ = tuple(value.shape) if isinstance(value, Tensor) else 'missing'
                problems.append(f'{name or kind} is {is_}, not {size}')
            else:
                state[f'{ours}.{kind}'] = value
    if problems:
        raise ValueError(
            f'{source} does not hold the parts of HP with a code of {channels} channels, {num_classes} classes and '
            f'{shape.embed_dims} features: {"; ".join(problems)}.'
        )
    if net:
        raise ValueError(f'{source} has entries without a counterpart in our HiddenPositives: {listed(net)}.')
    state['iteration'] = training_steps(content, 'iter')
    state['ema_head.steps'] = state['iteration'].clone()
    return ConvertedHost(state, shape, channels, num_classes)
