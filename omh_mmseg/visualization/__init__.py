"""Pictures of segmentations and hierarchies."""

from omh_mmseg.visualization.colours import cluster_palettes, distinct_colours, match_colours
from omh_mmseg.visualization.confusion import draw_confusion_matrix
from omh_mmseg.visualization.local_visualizer import UnsupervisedSegVisualizer
from omh_mmseg.visualization.plans import draw_plan_matrices
from omh_mmseg.visualization.segmentation import draw_segmentation_grid
from omh_mmseg.visualization.tree import draw_hierarchy_tree

__all__ = [
    'UnsupervisedSegVisualizer', 'cluster_palettes', 'distinct_colours', 'draw_confusion_matrix',
    'draw_hierarchy_tree', 'draw_plan_matrices', 'draw_segmentation_grid', 'match_colours',
]  # fmt: skip
