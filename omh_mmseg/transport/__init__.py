"""OMH's mathematics as plain functions on tensors; needs torch and POT alone."""

from omh_mmseg.transport.diagnostics import PlanDiagnostics, cluster_usage, diagnose_plan
from omh_mmseg.transport.hierarchy import Hierarchy
from omh_mmseg.transport.matching import (
    CONDITIONINGS,
    DIRECTIONS,
    TARGETS,
    condition_plan,
    matching_distance,
    transport_activations,
)
from omh_mmseg.transport.plan import PLAN_GRADIENTS, TransportPlan, cosine_cost, hierarchy_plans, sinkhorn_plan

__all__ = [
    'CONDITIONINGS',
    'DIRECTIONS',
    'Hierarchy',
    'PLAN_GRADIENTS',
    'PlanDiagnostics',
    'TARGETS',
    'TransportPlan',
    'cluster_usage',
    'condition_plan',
    'cosine_cost',
    'diagnose_plan',
    'hierarchy_plans',
    'matching_distance',
    'sinkhorn_plan',
    'transport_activations',
]
