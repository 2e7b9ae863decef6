"""Loading of backbone weights: where they are, whose names their keys have, and whether they fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

PACKAGE_SCHEME = 'omh_mmseg://'
ASSETS = Path(__file__).resolve().parents[2] / 'assets'
WRAPPER_KEYS = ('state_dict', 'model', 'teacher')
LISTED_KEYS = 6


def dino_to_mmpretrain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a DINO vision transformer to those of ``mmpretrain.VisionTransformer``.

    Args:
        state: DINO's own names (``blocks.0.attn.qkv.weight``, ``norm.weight``, ...), with or without the prefixes
            ``module.`` and ``backbone.``; projection-head entries of full training checkpoints are left out.
    """
    replacements = (
        ('patch_embed.proj.', 'patch_embed.projection.'),
        ('.norm1.', '.ln1.'),
        ('.norm2.', '.ln2.'),
        ('.mlp.fc1.', '.ffn.layers.0.0.'),
        ('.mlp.fc2.', '.ffn.layers.1.'),
        ('blocks.', 'layers.'),
    )
    converted = {}
    for key, value in state.items():
        key = key.removeprefix('module.').removeprefix('backbone.')
        if key.startswith('head.'):
            continue
        for old, new in replacements:
            key = key.replace(old, new)
        if key.startswith('norm.'):
            key = f'ln1.{key.removeprefix("norm.")}'
        converted[key] = value
    return converted


def dinov2_to_mmpretrain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a DINOv2 vision transformer to those of ``mmpretrain.VisionTransformer``.

    The names are DINO's, and two scales of each block beside them (``layer_scale_init_value`` of mmpretrain); the token
    of masked patches is left out, as only the pretraining uses it. The giant size has another feed-forward layer and
    is not converted.

    Args:
        state: DINOv2's own names (``blocks.0.ls1.gamma``, ...), prefixed or not, see `dino_to_mmpretrain`.
    """
    converted = {}
    for key, value in dino_to_mmpretrain(state).items():
        if key != 'mask_token':
            key = key.replace('.ls1.gamma', '.attn.gamma1.weight').replace('.ls2.gamma', '.ffn.gamma2.weight')
            converted[key] = value
    return converted


KEY_CONVERTERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    'dino': dino_to_mmpretrain,
    'dinov2': dinov2_to_mmpretrain,
}


def read_state_dict(checkpoint: str) -> dict[str, Tensor]:
    """Tensors of a checkpoint, read with ``weights_only``.

    Args:
        checkpoint: Local path, URL, or ``omh_mmseg://NAME`` for weights shipped with the library.

    Returns:
        Flat state dict; the wrappers ``state_dict``, ``model`` and ``teacher`` are opened.

    Raises:
        FileNotFoundError: If a local file is absent.
        ConnectionError: If a URL cannot be read.
        ValueError: If the file holds no state dict of tensors.
    """
    if checkpoint.startswith(('http://', 'https://')):
        try:
            content = torch.hub.load_state_dict_from_url(checkpoint, map_location='cpu', weights_only=True)
        except OSError as error:
            raise ConnectionError(
                f'Cannot download the backbone weights {checkpoint}: {error}. Download the file on another machine '
                'and pass its path: --cfg-options model.backbone.checkpoint=/path/to/file.pth'
            ) from error
    else:
        shipped = checkpoint.startswith(PACKAGE_SCHEME)
        path = ASSETS / checkpoint.removeprefix(PACKAGE_SCHEME) if shipped else Path(checkpoint)
        if not path.is_file():
            raise FileNotFoundError(
                f'No backbone weights at {path.absolute()}. Set model.backbone.checkpoint to a file or URL, '
                'e.g. --cfg-options model.backbone.checkpoint=/path/to/file.pth'
            )
        try:
            content = torch.load(path, map_location='cpu', weights_only=True)
        except Exception as error:
            raise ValueError(
                f'{path} is not a readable checkpoint of plain tensors ({type(error).__name__}: {error}).'
            ) from error
    return unwrap_state_dict(content, checkpoint)


def unwrap_state_dict(content: Any, name: str) -> dict[str, Tensor]:
    """Open the wrappers ``state_dict``, ``model`` and ``teacher`` of a checkpoint's content.

    Raises:
        ValueError: If it holds no state dict of tensors; ``name`` is the file in the message.
    """
    for key in WRAPPER_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f'{name} holds no state dict of tensors (looked below {WRAPPER_KEYS} too).')
    return content


def load_backbone_weights(
    backbone: nn.Module, checkpoint: str, key_converter: str | None = None, resize_positions: bool = True
) -> None:
    """Load weights strictly: every key must find its place, and every parameter its key.

    Args:
        backbone: Module to fill in place.
        checkpoint: See `read_state_dict`.
        key_converter: ``'dino'``, ``'dinov2'``, or None if the keys already have the module's names; of the checkpoint
            of a whole mm model, the entries below ``backbone.`` are then taken.
        resize_positions: Leave it to the backbone to resize a positional embedding of another native size by its own
            rule, which mmpretrain's do on loading; else such an embedding is an error.

    Raises:
        ValueError: If the converter is unknown, or keys are missing, left over or of another shape.
        FileNotFoundError: See `read_state_dict`.
        ConnectionError: See `read_state_dict`.
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
    except RuntimeError as error:
        raise ValueError(
            f'{checkpoint} holds weights of another architecture than the configured backbone: {error}'
        ) from error
    if result.missing_keys or result.unexpected_keys:
        raise ValueError(
            f'{checkpoint} does not fit {type(backbone).__name__}: missing {_some(result.missing_keys)}; left over '
            f'{_some(result.unexpected_keys)}. Set key_converter (one of {sorted(KEY_CONVERTERS)}) for another '
            'layout, or correct the backbone config.'
        )
    MMLogger.get_current_instance().info(f'Loaded the frozen backbone from {checkpoint}')


def _check_positions(backbone: nn.Module, state: dict[str, Tensor], checkpoint: str) -> None:
    own, stored = backbone.state_dict().get('pos_embed'), state.get('pos_embed')
    if own is not None and stored is not None and own.shape[-1:] == stored.shape[-1:] and own.shape != stored.shape:
        raise ValueError(
            f'{checkpoint} has a positional embedding of {stored.shape[1]} tokens and the backbone one of '
            f"{own.shape[1]}; it would be resized on loading, before position_interpolation='dino' sees it. Set "
            'img_size (and patch_size) of the wrapped backbone to those of the pretraining, e.g. 224 for DINO.'
        )


def _some(keys: list[str]) -> str:
    listed = ', '.join(keys[:LISTED_KEYS]) or 'none'
    return f'{listed} and {len(keys) - LISTED_KEYS} more' if len(keys) > LISTED_KEYS else listed
