"""Frozen features on disk, in place of forward passes of the backbone."""

from omh_mmseg.feature_cache.build import FeatureCache, FrozenPart
from omh_mmseg.feature_cache.cached_features import CachedFeatures

__all__ = ['CachedFeatures', 'FeatureCache', 'FrozenPart']
