"""Drawing code of the demo scenes; needs numpy and Pillow alone."""

from omh_mmseg.datasets.scenes.compose import IMAGE_SIZE, SCENE_KINDS, SPLITS, draw_scene
from omh_mmseg.datasets.scenes.taxonomy import HIERARCHY, LEVELS, LabelTree

__all__ = ['HIERARCHY', 'IMAGE_SIZE', 'LEVELS', 'SCENE_KINDS', 'SPLITS', 'LabelTree', 'draw_scene']
