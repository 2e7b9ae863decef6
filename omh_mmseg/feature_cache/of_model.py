"""What of a model's work is cached, by loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from omh_mmseg.feature_cache.frozen_part import FEATURES, MIRRORED, FrozenPart, JitteredViews, features_alone
from omh_mmseg.models.segmentors.base import UnsupervisedSegmentor

HOOK = 'FeatureCacheHook'


def hook_options(cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """Options of the `FeatureCacheHook` of a config; None without one."""
    for hook in [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]:
        if isinstance(hook, Mapping) and str(hook.get('type')).rpartition('.')[2] == HOOK:
            return {key: value for key, value in hook.items() if key not in ('type', 'priority')}
    return None


def frozen_part(
    model: UnsupervisedSegmentor, backbone_cfg: Mapping[str, Any], split: str, views: int = 0, view_seed: int = 0
) -> FrozenPart:
    """What is cached of a model's work in a loop.

    Raises:
        ValueError: There are to be jittered views, and the model trains on none.
    """
    if split != 'train':
        return FrozenPart(model.backbone, backbone_cfg, model.data_preprocessor, features_alone(model.backbone))
    jittered = None
    if views:
        if model.jitter_settings is None:
            raise ValueError(
                f'default_hooks.feature_cache.views={views} would reach nothing: {type(model).__name__} trains on no '
                'jittered view, or its consistency_weight is 0; leave it at 0'
            )
        jittered = JitteredViews(model.jittered, model.jitter_settings, views, view_seed)
    return FrozenPart(
        model.backbone,
        backbone_cfg,
        model.data_preprocessor,
        model.freeze,
        model.frozen_fields,
        model.frozen_types,
        jittered,
    )


def needs(
    model: UnsupervisedSegmentor, split: str, part: FrozenPart, kept: Sequence[str] | None = None
) -> tuple[list[str], bool]:
    """Fields that a loop takes from the cache, and whether it takes the images as well.

    Args:
        model: A host.
        split: The loop.
        part: What can be cached.
        kept: Those of the host's frozen fields that are, in training; None for all.

    Raises:
        ValueError: The host has no such field, or reads it together with another.
    """
    if split == 'train':
        views = [] if part.views is None else list(part.views.names)
        unknown = sorted(set(kept or ()) - model.frozen_fields.keys())
        if unknown or (kept is not None and not kept):
            raise ValueError(
                f'default_hooks.feature_cache.fields must be among those of {type(model).__name__}, '
                f'{list(model.frozen_fields)}, or None for all of them; got {kept}'
            )
        fields = [name for name in model.frozen_fields if kept is None or name in kept]
        if MIRRORED in model.frozen_fields and (MIRRORED in fields) != (FEATURES in fields):
            raise ValueError(
                f'{type(model).__name__} reads {FEATURES} and {MIRRORED} together: name both in '
                f'default_hooks.feature_cache.fields, or neither; got {kept}'
            )
        images = model.trains_on_images and not views
        return [*fields, *views], images or len(fields) < len(model.frozen_fields)
    return [FEATURES, *([MIRRORED] if model.predictor.options.flip else [])], model.predictor.crf is not None


def why_live(model: nn.Module, split: str) -> str | None:
    """Why a loop must have the images and cannot use a cache; None where it can."""
    if not isinstance(model, UnsupervisedSegmentor):
        return f'{type(model).__name__} needs the images'
    if split != 'train' and model.predictor.options.mode == 'slide':
        return "test_cfg.mode='slide' cuts windows out of the images"
    return None
