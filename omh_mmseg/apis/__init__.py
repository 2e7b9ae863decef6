"""Inference from Python and on folders."""

from omh_mmseg.apis.image_paths import collect_images
from omh_mmseg.apis.inference import Segmentation, SegmentationInferencer, find_images, init_model, list_folder
from omh_mmseg.apis.prediction_files import predict_images
from omh_mmseg.apis.prediction_grid import draw_prediction_grid
from omh_mmseg.apis.video import predict_video

__all__ = [
    'Segmentation',
    'SegmentationInferencer',
    'collect_images',
    'draw_prediction_grid',
    'find_images',
    'init_model',
    'list_folder',
    'predict_images',
    'predict_video',
]
