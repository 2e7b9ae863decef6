"""Settings as plain data and weights as digests, to be stored beside a result and compared later."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

BACKBONE = 'backbone.'


def plain_settings(settings: Any, left_out: Collection[str] = ()) -> Any:
    """Settings of a config as dicts, lists, texts, numbers and None alone.

    Args:
        settings: Of a config.
        left_out: Keys that are left out at every depth.
    """
    if isinstance(settings, Mapping):
        return {
            str(key): plain_settings(value, left_out)
            for key, value in sorted(settings.items(), key=lambda item: str(item[0]))
            if key not in left_out
        }
    if isinstance(settings, (list, tuple)):
        return [plain_settings(value, left_out) for value in settings]
    if isinstance(settings, type):
        return settings.__name__
    # Of exactly these types: a checkpoint with a subclass of one of them would not be read again.
    for plain in (bool, int, float, str):
        if isinstance(settings, plain):
            return plain(settings)
    return None if settings is None else repr(settings)


def weights_digest(weights: Mapping[str, Any]) -> str:
    """SHA-256 (first 16 digits) over names, types, shapes and bytes of all tensors of a state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        if not isinstance(value, Tensor):
            continue
        digest.update(f'{name.replace("_orig_mod.", "")} {value.dtype} {tuple(value.shape)}\n'.encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b'')
    return digest.hexdigest()[:16]


def backbone_digest(state: Mapping[str, Any]) -> str | None:
    """Digest of the backbone's weights in a state dict of a segmentor; None where it has none."""
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    weights = {key.removeprefix(BACKBONE): value for key, value in state.items() if key.startswith(BACKBONE)}
    return weights_digest(weights) if weights else None
