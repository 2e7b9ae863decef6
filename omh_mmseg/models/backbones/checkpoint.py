"""Loading of backbone weights: where they are, whose names their keys have, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from omh_mmseg.checkpoint_files import CheckpointError, read_as_data
from omh_mmseg.models.backbones.key_converters import KEY_CONVERTERS
from omh_mmseg.models.utils.loaded_weights import not_finite
from omh_mmseg.shipped import PACKAGE_SCHEME, asset_path
from omh_mmseg.switches import TRUST, is_on
from omh_mmseg.utils.downloads import check_digest, is_address, read_address, split_digest
from omh_mmseg.utils.text import first_few

WRAPPER_KEYS = ('state_dict', 'model', 'teacher')
SAFETENSORS = '.safetensors'
LISTED_KEYS = 6
LONGEST_REASON = 300


def read_state_dict(checkpoint: str) -> dict[str, Tensor]:
    """Tensors of a checkpoint, read with ``weights_only`` or, by its ending, as safetensors.

    Args:
        checkpoint: Local path, URL, or ``omh_mmseg://NAME`` for weights shipped with the library. Each may end in
            ``#sha256=`` and the first 8 to 64 digits of the file's SHA-256, which it is then compared with; how
            downloads are verified besides, `read_address` says.

    Returns:
        Flat state dict; the wrappers ``state_dict``, ``model`` and ``teacher`` are opened.

    Raises:
        FileNotFoundError: If a local file is absent.
        DownloadError: If a URL cannot be read, or gives another file; a ConnectionError.
        ValueError: If the file holds no state dict of tensors, or has another SHA-256.
        ModuleNotFoundError: For a file of safetensors without that library.
    """
    if is_address(checkpoint):
        content = read_address(checkpoint, partial(_content, name=checkpoint))
    else:
        path, (_, digest) = weights_file(checkpoint), split_digest(checkpoint)
        if digest is not None:
            check_digest(path, digest)
        content = _content(path, str(path))
    return unwrap_state_dict(content, checkpoint)


def weights_file(checkpoint: str) -> Path:
    """The local file that `read_state_dict` takes.

    Raises:
        FileNotFoundError: It is absent.
    """
    name, _ = split_digest(checkpoint)
    path = asset_path(name) if name.startswith(PACKAGE_SCHEME) else Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f'No backbone weights at {path.absolute()}. Set model.backbone.checkpoint to a file or URL, '
            'e.g. --cfg-options model.backbone.checkpoint=/path/to/file.pth'
        )
    return path


def _content(path: Path, name: str) -> Any:
    if path.suffix == SAFETENSORS:
        if find_spec('safetensors') is None:
            raise ModuleNotFoundError(
                f'{name} is read with the library safetensors, which is not installed: pip install safetensors'
            )
        read = import_module('safetensors.torch').load_file
    else:
        read = partial(torch.load, map_location='cpu', weights_only=not is_on(TRUST))
    with read_as_data(name):
        return read(path)


def unwrap_state_dict(content: Any, name: str) -> dict[str, Tensor]:
    """Open the wrappers ``state_dict``, ``model`` and ``teacher`` of a checkpoint's content.

    Raises:
        ValueError: If it holds no state dict of tensors; ``name`` is the file in the message.
    """
    for key in WRAPPER_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CheckpointError(
            f'{name} holds no state dict of tensors (looked below {WRAPPER_KEYS} too). Set model.backbone.checkpoint '
            'to weights of the backbone.'
        )
    return content


def load_backbone_weights(
    backbone: nn.Module,
    checkpoint: str,
    key_converter: str | None = None,
    resize_positions: bool = True,
    allow_left_over: Sequence[str] = (),
    allow_missing: Sequence[str] = (),
) -> None:
    """Load weights strictly: every key must find its place, and every parameter its key.

    Args:
        backbone: Module to fill in place.
        checkpoint: See `read_state_dict`.
        key_converter: A name in `KEY_CONVERTERS`, or None if the keys already have the module's names; of the
            checkpoint of a whole mm model, the entries below ``backbone.`` are then taken.
        resize_positions: Leave it to the backbone to resize a positional embedding of another native size by its own
            rule, which mmpretrain's do on loading; else such an embedding is an error.
        allow_left_over: Patterns (``'head.*'``) of keys, after the conversion, that the backbone need not have.
        allow_missing: Patterns of keys that the checkpoint need not have; those parameters stay as they are.

    Raises:
        ValueError: If the converter is unknown, or keys are missing, left over or of another shape.
        FileNotFoundError: See `read_state_dict`.
        DownloadError: See `read_state_dict`.
        ModuleNotFoundError: See `read_state_dict`.
    """
    if key_converter is not None and key_converter not in KEY_CONVERTERS:
        raise ValueError(f'key_converter must be None or one of {sorted(KEY_CONVERTERS)}; got {key_converter!r}.')
    state = read_state_dict(checkpoint)
    if key_converter is not None:
        state = KEY_CONVERTERS[key_converter](state)
    elif any(key.startswith('backbone.') for key in state):
        state = {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}
    if not resize_positions:
        _check_positions(backbone, state, checkpoint)
    try:
        result = backbone.load_state_dict(state, strict=False)
    except (AssertionError, IndexError, RuntimeError) as error:
        reason = ' '.join(str(error).split())[:LONGEST_REASON]
        raise CheckpointError(
            f'{checkpoint} holds weights of another architecture than the configured backbone ({reason}). Correct the '
            'backbone config, or set model.backbone.checkpoint to weights of it.'
        ) from error
    missing, allowed_missing = _split(result.missing_keys, allow_missing)
    left_over, allowed_left_over = _split(result.unexpected_keys, allow_left_over)
    if missing or left_over:
        raise CheckpointError(
            f'{checkpoint} does not fit {type(backbone).__name__}: missing {_some(missing)}; left over '
            f'{_some(left_over)}. Set key_converter (one of {sorted(KEY_CONVERTERS)}) for another '
            'layout, correct the backbone config, or name what may be so in allow_missing or allow_left_over, e.g. '
            "allow_left_over=['head.*']."
        )
    infinite = not_finite(state)
    if infinite:
        raise CheckpointError(
            f'{checkpoint} has {len(infinite)} weights that are not finite: {_some(infinite)}. Set '
            'model.backbone.checkpoint to other weights.'
        )
    logger = MMLogger.get_current_instance()
    logger.info(f'Loaded the frozen backbone from {checkpoint}')
    if allowed_missing or allowed_left_over:
        logger.info(
            f'As allowed, {_some(allowed_missing)} stayed without weights, and {_some(allowed_left_over)} unused.'
        )


def _split(keys: Sequence[str], allowed: Sequence[str]) -> tuple[list[str], list[str]]:
    """Keys that match none of the patterns, and those that match one."""
    matching = [key for key in keys if any(fnmatch(key, pattern) for pattern in allowed)]
    return [key for key in keys if key not in matching], matching


def _check_positions(backbone: nn.Module, state: dict[str, Tensor], checkpoint: str) -> None:
    needed, stored = backbone.state_dict().get('pos_embed'), state.get('pos_embed')
    if needed is None or stored is None:
        return
    if needed.shape[-1:] == stored.shape[-1:] and needed.shape != stored.shape:
        raise CheckpointError(
            f'{checkpoint} has a positional embedding of {stored.shape[1]} tokens and the backbone one of '
            f"{needed.shape[1]}; it would be resized on loading, before position_interpolation='dino' sees it. Set "
            'img_size (and patch_size) of the wrapped backbone to those of the pretraining, e.g. 224 for DINO.'
        )


def _some(keys: list[str]) -> str:
    return first_few(keys, LISTED_KEYS) or 'none'
