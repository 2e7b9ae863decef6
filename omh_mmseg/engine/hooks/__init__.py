"""Hooks."""

from omh_mmseg.engine.hooks.assignment_hook import AssignmentHook
from omh_mmseg.engine.hooks.border_cluster_hook import BorderClusterHook
from omh_mmseg.engine.hooks.checkpoint_check_hook import CheckpointCheckHook
from omh_mmseg.engine.hooks.closing_refit_hook import ClosingRefitHook
from omh_mmseg.engine.hooks.deferred_runtime_info_hook import DeferredRuntimeInfoHook
from omh_mmseg.engine.hooks.feature_cache_hook import FeatureCacheHook
from omh_mmseg.engine.hooks.hierarchy_hook import HierarchyHook
from omh_mmseg.engine.hooks.label_free_hook import LabelFreeHook
from omh_mmseg.engine.hooks.neighbour_index_hook import NeighbourIndexHook
from omh_mmseg.engine.hooks.non_finite_loss_hook import NonFiniteLossHook
from omh_mmseg.engine.hooks.protocol_hook import ProtocolHook
from omh_mmseg.engine.hooks.prototype_start_hook import PrototypeStartHook
from omh_mmseg.engine.hooks.provenance_hook import ProvenanceHook
from omh_mmseg.engine.hooks.random_state_hook import RandomStateHook
from omh_mmseg.engine.hooks.reference_pool_hook import ReferencePoolHook
from omh_mmseg.engine.hooks.resumed_validation_hook import ResumedValidationHook
from omh_mmseg.engine.hooks.run_length_hook import RunLengthHook
from omh_mmseg.engine.hooks.score_report_hook import ScoreReportHook
from omh_mmseg.engine.hooks.submodule_gradient_clip_hook import SubmoduleGradientClipHook
from omh_mmseg.engine.hooks.temporal_pairs_hook import TemporalPairsHook
from omh_mmseg.engine.hooks.work_dir_lock_hook import WorkDirLockHook

__all__ = [
    'AssignmentHook', 'BorderClusterHook', 'CheckpointCheckHook', 'ClosingRefitHook', 'DeferredRuntimeInfoHook',
    'FeatureCacheHook', 'HierarchyHook', 'LabelFreeHook', 'NeighbourIndexHook', 'NonFiniteLossHook',
    'ProtocolHook', 'PrototypeStartHook', 'ProvenanceHook', 'RandomStateHook', 'ReferencePoolHook',
    'ResumedValidationHook', 'RunLengthHook', 'ScoreReportHook', 'SubmoduleGradientClipHook', 'TemporalPairsHook',
    'WorkDirLockHook',
]  # fmt: skip
