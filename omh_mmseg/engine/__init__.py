"""Hooks, constructors and what the commands share."""

from omh_mmseg.engine import checkpoints, hooks
from omh_mmseg.engine.optim_wrapper_constructor import TrainableOptimWrapperConstructor

__all__ = ['TrainableOptimWrapperConstructor', 'checkpoints', 'hooks']
