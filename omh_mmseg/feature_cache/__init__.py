"""Frozen features on disk, in place of forward passes of the backbone."""

from omh_mmseg.feature_cache.build import FeatureCache
from omh_mmseg.feature_cache.cached_features import CachedFeatures
from omh_mmseg.feature_cache.frozen_part import FrozenPart

__all__ = ['CachedFeatures', 'FeatureCache', 'FrozenPart']
