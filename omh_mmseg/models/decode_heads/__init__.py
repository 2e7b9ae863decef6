"""What has parameters on top of the backbone."""

from omh_mmseg.models.decode_heads.identity_head import IdentityHead
from omh_mmseg.models.decode_heads.momentum_prototypes import MomentumPrototypes
from omh_mmseg.models.decode_heads.probes import ClusterProbe, LinearProbe
from omh_mmseg.models.decode_heads.projection_head import ProjectionHead
from omh_mmseg.models.decode_heads.prototypes import PrototypeHead

__all__ = ['ClusterProbe', 'IdentityHead', 'LinearProbe', 'MomentumPrototypes', 'ProjectionHead', 'PrototypeHead']
