"""OMH: parallel clusterings of the code, related by optimal transport."""

from omh_mmseg.models.omh.centre_rules import GradientCentres, JointCentres, MomentumCentres
from omh_mmseg.models.omh.head import OMHHead
from omh_mmseg.models.omh.level_sizes import expand_levels
from omh_mmseg.models.omh.plan_solver import PlanSolver
from omh_mmseg.models.omh.reach import FixedWeight, HostShare

__all__ = [
    'FixedWeight',
    'GradientCentres',
    'HostShare',
    'JointCentres',
    'MomentumCentres',
    'OMHHead',
    'PlanSolver',
    'expand_levels',
]
