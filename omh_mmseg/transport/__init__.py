"""OMH's mathematics as plain functions on tensors; needs torch and POT alone."""

from omh_mmseg.transport.diagnostics import cluster_usage, diagnose_plan
from omh_mmseg.transport.hierarchy import Hierarchy
from omh_mmseg.transport.matching import matching_distance
from omh_mmseg.transport.plan import TransportPlan, hierarchy_plans

__all__ = ['Hierarchy', 'TransportPlan', 'cluster_usage', 'diagnose_plan', 'hierarchy_plans', 'matching_distance']
