"""The backbone inside the frozen adapter: how it is built, and what it is said to offer."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from omh_mmseg.registry import MODELS
from omh_mmseg.shipped import install_extra

TIMM_TYPE = 'TIMMBackbone'


def build_wrapped(config: dict[str, Any]) -> nn.Module:
    """Build a backbone of the registries of mmseg, mmpretrain and, through a wrapper, timm.

    Args:
        config: Its config.

    Raises:
        ValueError: The type is not registered, or refuses its options.
        ModuleNotFoundError: A model of timm without that library.
    """
    kind = config.get('type')
    if str(kind).rpartition('.')[2] == TIMM_TYPE and find_spec('timm') is None:
        raise ModuleNotFoundError(
            f'Backbone type {kind!r} needs the library timm, which is not installed: {install_extra("timm")}'
        )
    try:
        return MODELS.build(config)
    except (AssertionError, IndexError) as error:
        settings = {name: value for name, value in config.items() if name != 'type'}
        raise ValueError(
            f'Backbone type {kind!r} refuses its options {settings} ({str(error) or "it gives no reason"}). '
            'Where out_indices is among them, every index must be one of its stages, counted from 0.'
        ) from error
    except KeyError as error:
        if 'registry' not in str(error):
            raise
        raise ValueError(
            f"Backbone type {kind!r} is not registered. Use a name of mmseg's registry "
            "('SwinTransformer', 'ResNetV1c', ...), one of mmpretrain's ('mmpretrain.VisionTransformer', "
            "'mmpretrain.ResNet', ...), or dict(type='mmpretrain.TIMMBackbone', model_name=..., features_only=True) "
            'for a timm model; a backbone of your own needs its module in custom_imports.'
        ) from error


def is_convolutional(backbone: nn.Module) -> bool:
    """Whether most of a backbone's weights are in convolutions."""
    convolutions = [item for item in backbone.modules() if isinstance(item, nn.Conv2d)]
    weights = sum(item.weight.numel() for item in convolutions)
    return 2 * weights > sum(item.numel() for item in backbone.parameters())


def described_outputs(outputs: Any) -> str:
    """What a backbone returned for one image of the dry run, e.g. ``0: 64 channels, 56x56``."""
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    parts = []
    for index, item in enumerate(outputs):
        if isinstance(item, Tensor) and item.dim() == 4:
            parts.append(f'{index}: {item.shape[1]} channels, {item.shape[2]}x{item.shape[3]}')
        else:
            parts.append(f'{index}: {tuple(item.shape) if isinstance(item, Tensor) else type(item).__name__}')
    return 'outputs ' + '; '.join(parts)
