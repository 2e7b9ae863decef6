"""Frozen features on disk, in place of forward passes of the backbone."""

from omh_mmseg.feature_cache.build import FeatureCache, FrozenPart
from omh_mmseg.feature_cache.cached_features import CachedFeatures
from omh_mmseg.feature_cache.prepare import describe_features, prepare_features

__all__ = ['CachedFeatures', 'FeatureCache', 'FrozenPart', 'describe_features', 'prepare_features']
