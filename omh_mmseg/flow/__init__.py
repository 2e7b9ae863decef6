"""Optical flow between frames: estimators, warping along it, and which pixels are hidden."""

from omh_mmseg.flow.estimators import DISFlow, FlowEstimator, RAFTFlow
from omh_mmseg.flow.warping import resize_flow, visible, warp, warp_labels

__all__ = ['DISFlow', 'FlowEstimator', 'RAFTFlow', 'resize_flow', 'visible', 'warp', 'warp_labels']
