"""What has parameters on top of the backbone."""

from omh_mmseg.models.decode_heads.level_sizes import expand_levels
from omh_mmseg.models.decode_heads.omh_head import OMHHead
from omh_mmseg.models.decode_heads.probes import ClusterProbe, LinearProbe, centre_scores, code_similarity
from omh_mmseg.models.decode_heads.projection_head import ProjectionHead
from omh_mmseg.models.decode_heads.prototypes import PrototypeHead

__all__ = [
    'ClusterProbe',
    'LinearProbe',
    'OMHHead',
    'ProjectionHead',
    'PrototypeHead',
    'centre_scores',
    'code_similarity',
    'expand_levels',
]
