"""What a data set and a model are, as plain data that can be stored beside a result and compared later.

Neighbour indices, stored crops and cached features hold fingerprints of what they were made from; whoever uses them
compares these with those of the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from omh_mmseg.datasets.wrapper import DatasetWrapper
from omh_mmseg.utils.digests import plain_settings, weights_digest

DATASET_PARTS = ('items', 'images', 'pipeline')
MODEL_PARTS = ('backbone', 'weights', 'normalisation')
DROPOUT_PART = 'train_mode_dropout'
BACKBONE_KEYS_OUTSIDE = ('checkpoint', 'init_cfg', 'pretrained', 'channels_last')
TRANSFORMS_OUTSIDE = ('PackSegInputs', 'LoadAnnotations', 'LoadOptionalAnnotations')
SAMPLED_SIZES = 64


def dataset_fingerprint(dataset: Any) -> dict[str, Any]:
    """What identifies the items of a data set: their number, the image list and the pipeline.

    Images are known by their path below ``data_root`` (a moved folder stays valid) and by the size in bytes of up to 64
    of them. Loading of labels and packing do not count, since features do not depend on them.

    Args:
        dataset: A data set or wrapper of data sets, completely initialised.

    Returns:
        ``items`` (int), ``images`` (digest) and ``pipeline`` (list of readable transforms).
    """
    wrappers = []
    base = dataset
    while isinstance(base, DatasetWrapper):
        wrappers.append(repr(base))
        if not base.uses_wrapped_images:
            break
        base = base.dataset
    core = base
    while not hasattr(core, 'pipeline') and hasattr(core, 'dataset'):
        core = core.dataset
    root = getattr(base if isinstance(base, DatasetWrapper) else core, 'data_root', None)
    paths = [base.get_data_info(item)['img_path'] for item in range(len(base))]
    digest = hashlib.sha256()
    for path in paths:
        name = os.path.relpath(path, root) if root else os.path.basename(path)
        digest.update(name.replace(os.sep, '/').encode() + b'\n')
    for path in paths[:: max(1, len(paths) // SAMPLED_SIZES)]:
        digest.update(f'{os.path.getsize(path) if os.path.isfile(path) else -1}\n'.encode())
    transforms = getattr(getattr(core, 'pipeline', None), 'transforms', [])
    kept = [transform for transform in transforms if type(transform).__name__ not in TRANSFORMS_OUTSIDE]
    pipeline = [re.sub(r' at 0x[0-9a-f]+', '', repr(transform)) for transform in kept]
    if not getattr(core, 'turn_images', True):
        pipeline.append('turn_images=False')
    return dict(items=len(dataset), images=digest.hexdigest()[:16], pipeline=[*reversed(wrappers), *pipeline])


def model_fingerprint(backbone: nn.Module, backbone_cfg: dict, preprocessor_cfg: dict) -> dict[str, Any]:
    """What identifies the features: the backbone's config, its loaded weights and the normalisation.

    Args:
        backbone: The built backbone with its weights loaded.
        backbone_cfg: Its config; where the weights come from does not count, their digest does, nor does
            the order of the values in memory.
        preprocessor_cfg: Config of the data preprocessor.

    Returns:
        ``backbone`` (config as canonical JSON), ``weights`` (digest) and ``normalisation``.
    """
    normalisation = {
        key: preprocessor_cfg[key] for key in ('mean', 'std', 'bgr_to_rgb', 'rgb_to_bgr') if preprocessor_cfg.get(key)
    }
    return dict(
        backbone=_canonical(backbone_cfg),
        weights=weights_digest(backbone.state_dict()),
        normalisation=_canonical(normalisation),
    )


def compare_fingerprints(stored: dict, current: dict, parts: Iterable[str]) -> list[str]:
    """Describe where two fingerprints differ, one sentence per part; empty if they agree.

    Args:
        stored: What an index was computed from.
        current: That of this run.
        parts: Names of the parts to compare.
    """
    differences = []
    for part in parts:
        if stored.get(part) != current.get(part):
            differences.append(f'{part}: the index has {stored.get(part)}, this run has {current.get(part)}')
    return differences


def _canonical(cfg: Any) -> str:
    def floats(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: floats(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [floats(entry) for entry in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    return json.dumps(floats(plain_settings(cfg, BACKBONE_KEYS_OUTSIDE)), sort_keys=True)
