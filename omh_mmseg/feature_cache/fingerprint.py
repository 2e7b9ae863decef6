"""What cached features belong to, completely: a change of anything gives another key."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from omh_mmseg.datasets.fingerprint import model_fingerprint
from omh_mmseg.datasets.random_transforms import nested, transforms_of
from omh_mmseg.models.data_preprocessor import preprocessing

FORMAT = 1
PATH_SUFFIX = '_path'
SHARED_VALUES = 64


def cache_fingerprint(
    dataset: Any, backbone: nn.Module, backbone_cfg: Mapping[str, Any], preprocessor: nn.Module, training: bool
) -> dict[str, Any]:
    """What identifies the cached items of a data set under a model.

    Args:
        dataset: The data set that is cached, completely initialised.
        backbone: Built, with its weights.
        backbone_cfg: Its config.
        preprocessor: The model's data preprocessor; images are padded as it pads them.
        training: Whether they are padded as in training.

    Returns:
        Readable parts: ``backbone``, ``weights`` (digest), ``preprocessing``, ``pipeline`` (all transforms with their
        settings and a digest of their code), ``dataset``, ``items`` and ``files`` (digest of the paths below the root,
        sizes and times of all images and labels and of each item's description).
    """
    parts = model_fingerprint(backbone, dict(backbone_cfg), {})
    del parts['normalisation']
    return dict(
        format=FORMAT,
        **parts,
        preprocessing=preprocessing(preprocessor, training),
        pipeline=[_described(transform) for transform in transforms_of(dataset)],
        dataset=_chain(dataset),
        items=len(dataset),
        files=_files_digest(dataset),
    )


def fingerprint_key(fingerprint: Mapping[str, Any], dtype: str) -> str:
    """Name of the cache's folder."""
    text = json.dumps([fingerprint, dtype], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _described(transform: Any) -> str:
    """Settings of a transform, from its attributes as well as from its text, and a digest of its code."""
    try:
        code = inspect.getsource(type(transform))
    except (OSError, TypeError):
        code = type(transform).__module__
    settings = {
        name: sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        for name, value in sorted(vars(transform).items())
        if not callable(value)
    }
    text = re.sub(r' at 0x[0-9a-f]+', '', f'{transform!r} {settings!r}')
    inner = [_described(one) for one in nested(list(vars(transform).values())) if hasattr(one, 'transform')]
    return ' '.join([text, hashlib.sha256(code.encode()).hexdigest()[:8], *inner])


def _chain(dataset: Any) -> str:
    """Classes of a data set and those inside it, wrappers with their settings."""
    inner = getattr(dataset, 'dataset', None)
    name = type(dataset).__qualname__
    if inner is None:
        return name
    text = re.sub(r' at 0x[0-9a-f]+', '', repr(dataset))
    return f'{text if len(text) < 200 else name} of {_chain(inner)}'


def _files_digest(dataset: Any) -> str:
    root = _root(dataset)
    digest = hashlib.sha256()
    known: dict[str, str] = {}
    # What all items share, such as a map of labels, is long and the same object.
    shared: dict[int, tuple[Any, str]] = {}
    for item in range(len(dataset)):
        info = dataset.get_data_info(item)
        for name, value in sorted(info.items()):
            if name.endswith(PATH_SUFFIX) and isinstance(value, str):
                if value not in known:
                    known[value] = _file(value, root)
                text = known[value]
            elif isinstance(value, dict):
                if id(value) not in shared:
                    # An object that is kept keeps its number for itself.
                    shared = {} if len(shared) > SHARED_VALUES else shared
                    shared[id(value)] = value, repr(value)
                text = shared[id(value)][1]
            else:
                text = repr(value)
            digest.update(f'{name}={text}\n'.encode())
    return digest.hexdigest()[:16]


def _file(path: str, root: str | None) -> str:
    name = (os.path.relpath(path, root) if root else path).replace(os.sep, '/')
    try:
        state = os.stat(path)
    except OSError:
        return f'{name} absent'
    return f'{name} {state.st_size} {state.st_mtime_ns}'


def _root(dataset: Any) -> str | None:
    while dataset is not None:
        root = getattr(dataset, 'data_root', None)
        if root:
            return str(root)
        dataset = getattr(dataset, 'dataset', None)
    return None
