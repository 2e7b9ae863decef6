"""Hooks."""

from omh_mmseg.engine.hooks.hierarchy_hook import HierarchyHook
from omh_mmseg.engine.hooks.neighbour_index_check_hook import NeighbourIndexCheckHook
from omh_mmseg.engine.hooks.non_finite_loss_hook import NonFiniteLossHook

__all__ = ['HierarchyHook', 'NeighbourIndexCheckHook', 'NonFiniteLossHook']
