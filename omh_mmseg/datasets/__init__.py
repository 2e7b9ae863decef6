"""Data sets, wrappers and transforms."""

from omh_mmseg.datasets.cityscapes27 import Cityscapes27
from omh_mmseg.datasets.coco_stuff27 import COCOStuff27
from omh_mmseg.datasets.demo_scenes import DemoScenes
from omh_mmseg.datasets.five_crop.wrapper import FiveCrop
from omh_mmseg.datasets.folder import FolderSegDataset
from omh_mmseg.datasets.images import ImageReader, ImageReaderBackend, LoadImage
from omh_mmseg.datasets.mat_files import MatImageBackend
from omh_mmseg.datasets.neighbours.pairs import NeighbourPairs
from omh_mmseg.datasets.potsdam3 import Potsdam3
from omh_mmseg.datasets.samplers import SeededInfiniteSampler
from omh_mmseg.datasets.transforms import (
    CentreCrop,
    FiveCropPatch,
    LoadOptionalAnnotations,
    ResizeShortSide,
    ResizeToCover,
)
from omh_mmseg.datasets.video.moving_scenes import MovingScenes
from omh_mmseg.datasets.video.pairs import TemporalPairs
from omh_mmseg.datasets.video.video_folder import VideoFolder
from omh_mmseg.datasets.video.with_flow import FramesWithFlow

__all__ = [
    'COCOStuff27', 'CentreCrop', 'Cityscapes27', 'DemoScenes', 'FiveCrop', 'FiveCropPatch', 'FolderSegDataset',
    'FramesWithFlow', 'ImageReader', 'ImageReaderBackend', 'LoadImage', 'LoadOptionalAnnotations', 'MatImageBackend',
    'MovingScenes', 'NeighbourPairs', 'Potsdam3', 'ResizeShortSide', 'ResizeToCover', 'SeededInfiniteSampler',
    'TemporalPairs', 'VideoFolder',
]  # fmt: skip
