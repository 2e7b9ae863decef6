"""Registries of the library, children of mmseg's.

Each component is entered twice under one name: in the scope ``omh_mmseg`` (``type='omh_mmseg.STEGO'`` works from any
project) and in mmseg's own registry, because several of mmseg's tools fix the default scope to ``mmseg`` and users'
configs keep ``default_scope = 'mmseg'``.
"""

from __future__ import annotations

from collections.abc import Callable

from mmengine.registry import Registry
from mmseg import registry as mmseg_registry


class PublishedRegistry(Registry):
    """A child registry that also enters its modules in its parent.

    Args:
        parent: The mmseg registry to extend and to publish to.
    """

    def __init__(self, parent: Registry) -> None:
        super().__init__(parent.name, parent=parent, scope='omh_mmseg', locations=['omh_mmseg'])

    def _register_module(
        self, module: type, module_name: str | list[str] | None = None, force: bool = False
    ) -> None:
        super()._register_module(module, module_name, force)
        self.parent._register_module(module, module_name, force)

    def register_own_module(self, names: list[str]) -> Callable[[type], type]:
        """Decorator that enters a module in the scope ``omh_mmseg`` alone, under names that are taken in mmseg's."""

        def register(module: type) -> type:
            Registry._register_module(self, module, names)
            return module

        return register


MODELS = PublishedRegistry(mmseg_registry.MODELS)
DATASETS = PublishedRegistry(mmseg_registry.DATASETS)
DATA_SAMPLERS = PublishedRegistry(mmseg_registry.DATA_SAMPLERS)
TRANSFORMS = PublishedRegistry(mmseg_registry.TRANSFORMS)
METRICS = PublishedRegistry(mmseg_registry.METRICS)
HOOKS = PublishedRegistry(mmseg_registry.HOOKS)
OPTIM_WRAPPER_CONSTRUCTORS = PublishedRegistry(mmseg_registry.OPTIM_WRAPPER_CONSTRUCTORS)
VISUALIZERS = PublishedRegistry(mmseg_registry.VISUALIZERS)
TASK_UTILS = PublishedRegistry(mmseg_registry.TASK_UTILS)

# They hold nothing of ours: a config whose base is one of ours looks for its loop or optimiser in our scope first.
for _registry in vars(mmseg_registry).values():
    if isinstance(_registry, Registry) and 'omh_mmseg' not in _registry.children:
        PublishedRegistry(_registry)
