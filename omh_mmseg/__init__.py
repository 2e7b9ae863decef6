"""Unsupervised semantic segmentation with optimally matched hierarchies, for MMSegmentation.

Importing the package registers its components with mmseg. Where no mm package is installed only
:mod:`omh_mmseg.transport` can be used, which needs torch and pot alone.
"""

from omh_mmseg import compat, stack
from omh_mmseg.version import __version__

if stack.stack_is_absent():
    stack.guard_rooms()
else:
    compat.apply()
    from omh_mmseg import apis, datasets, engine, evaluation, models, visualization  # noqa: F401
    from omh_mmseg.datasets.images.load_image import reader_of
    from omh_mmseg.utils.downloads import read_address

    compat.download_checkpoints_by(read_address)
    compat.draw_pictures_by(reader_of)

__all__ = ['__version__']
