"""Hooks."""

from omh_mmseg.engine.hooks.hierarchy_hook import HierarchyHook
from omh_mmseg.engine.hooks.non_finite_loss_hook import NonFiniteLossHook

__all__ = ['HierarchyHook', 'NonFiniteLossHook']
