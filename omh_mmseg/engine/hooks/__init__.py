"""Hooks."""

from omh_mmseg.engine.hooks.assignment_hook import AssignmentHook
from omh_mmseg.engine.hooks.checkpoint_shape_hook import CheckpointShapeHook
from omh_mmseg.engine.hooks.deferred_runtime_info_hook import DeferredRuntimeInfoHook
from omh_mmseg.engine.hooks.feature_cache_hook import FeatureCacheHook
from omh_mmseg.engine.hooks.hierarchy_hook import HierarchyHook
from omh_mmseg.engine.hooks.neighbour_index_check_hook import NeighbourIndexCheckHook
from omh_mmseg.engine.hooks.non_finite_loss_hook import NonFiniteLossHook
from omh_mmseg.engine.hooks.protocol_hook import ProtocolHook
from omh_mmseg.engine.hooks.random_state_hook import RandomStateHook
from omh_mmseg.engine.hooks.reference_pool_hook import ReferencePoolHook
from omh_mmseg.engine.hooks.run_length_hook import RunLengthHook
from omh_mmseg.engine.hooks.score_report_hook import ScoreReportHook
from omh_mmseg.engine.hooks.submodule_gradient_clip_hook import SubmoduleGradientClipHook

__all__ = [
    'AssignmentHook', 'CheckpointShapeHook', 'DeferredRuntimeInfoHook', 'FeatureCacheHook', 'HierarchyHook',
    'NeighbourIndexCheckHook', 'NonFiniteLossHook', 'ProtocolHook', 'RandomStateHook', 'ReferencePoolHook',
    'RunLengthHook', 'ScoreReportHook', 'SubmoduleGradientClipHook',
]  # fmt: skip
