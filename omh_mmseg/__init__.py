"""Unsupervised semantic segmentation with optimally matched hierarchies, for MMSegmentation.

With the first import of an mm package or of a room that needs one, all components are registered with mmseg; where one
is imported already, at once. Until then importing the package costs nothing, and :mod:`omh_mmseg.transport` needs torch
and pot alone.
"""

from importlib import import_module
from typing import Any

from omh_mmseg import stack
from omh_mmseg.shipped import checkpoint_path, config_path, list_configs, shipped_config
from omh_mmseg.version import __version__

_ROOMS = ('apis', 'compat', 'datasets', 'engine', 'evaluation', 'models', 'transport', 'visualization')


def _load() -> None:
    """Repair the mm packages and register every component."""
    from omh_mmseg import compat

    compat.apply()
    from omh_mmseg import apis, datasets, engine, evaluation, models, visualization  # noqa: F401
    from omh_mmseg.datasets.images.load_image import reader_of
    from omh_mmseg.utils.downloads import read_address
    from omh_mmseg.utils.metafiles import weights_of

    compat.download_checkpoints_by(read_address)
    compat.draw_pictures_by(reader_of)
    compat.find_models_by(shipped_config, weights_of)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__} has no attribute {name}')


stack.load_when_needed(_load)

__all__ = ['__version__', 'checkpoint_path', 'config_path', 'list_configs']
