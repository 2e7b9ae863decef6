"""What of a model's work is cached, by loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from omh_mmseg.feature_cache.frozen_part import FEATURES, MIRRORED, FrozenPart, features_alone
from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor

HOOK = 'FeatureCacheHook'


def hook_options(cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """Options of the `FeatureCacheHook` of a config; None without one."""
    for hook in [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]:
        if isinstance(hook, Mapping) and str(hook.get('type')).rpartition('.')[2] == HOOK:
            return {key: value for key, value in hook.items() if key not in ('type', 'priority')}
    return None


def frozen_part(model: UnsupervisedSegmentor, backbone_cfg: Mapping[str, Any], split: str) -> FrozenPart:
    """What is cached of a model's work in a loop."""
    if split == 'train':
        return FrozenPart(model.backbone, backbone_cfg, model.data_preprocessor, model.freeze, model.frozen_fields)
    return FrozenPart(model.backbone, backbone_cfg, model.data_preprocessor, features_alone(model.backbone))


def needs(model: UnsupervisedSegmentor, split: str) -> tuple[list[str], bool]:
    """Fields that a loop takes from the cache, and whether it takes the images as well."""
    if split == 'train':
        return list(model.frozen_fields), model.trains_on_images
    return [FEATURES, *([MIRRORED] if model.predictor.options.flip else [])], model.predictor.crf is not None


def why_live(model: nn.Module, split: str) -> str | None:
    """Why a loop must have the images and cannot use a cache; None where it can."""
    if not isinstance(model, UnsupervisedSegmentor):
        return f'{type(model).__name__} needs the images'
    if split != 'train' and model.predictor.options.mode == 'slide':
        return "test_cfg.mode='slide' cuts windows out of the images"
    return None
