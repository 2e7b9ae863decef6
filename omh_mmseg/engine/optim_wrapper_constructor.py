"""Parameter groups without the frozen backbone."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from omh_mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, leaving out modules in which nothing is trained.

    The default one puts frozen parameters into the optimiser all the same, with a warning for each.
    """

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, prefix: str = '', **kwargs: Any) -> None:
        """Add the parameter groups of a module to ``params``; see mmengine."""
        if any(parameter.requires_grad for parameter in module.parameters()):
            super().add_params(params, module, prefix=prefix, **kwargs)
