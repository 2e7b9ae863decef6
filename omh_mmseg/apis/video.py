"""Segment a video frame by frame: masks, an overlay video and a summary, in memory that does not grow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.logging import MMLogger
from PIL import Image
from torch import Tensor

from omh_mmseg.apis.inference import SegmentationInferencer
from omh_mmseg.apis.prediction_files import describe_heads, head_palettes, prediction_settings, write_masks
from omh_mmseg.apis.video_state import VideoState
from omh_mmseg.datasets.video.reader import VideoFrames
from omh_mmseg.flow.estimators import build_flow
from omh_mmseg.models.prediction.code_smoothing import CodeSmoother
from omh_mmseg.utils.checks import COUNT, ranges
from omh_mmseg.utils.progress import progress_bar
from omh_mmseg.visualization.local_visualizer import fit_image

OVERLAY = 'overlay.mp4'
UNKNOWN_SPEED = 25.0
"""Frames per second of the overlay of a video that does not say how fast it is."""


@ranges(opacity='(0, 1]', smoothing='[0, 1)', stride=COUNT)
def predict_video(
    inferencer: SegmentationInferencer,
    video: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    overlay: str | None = 'probe',
    opacity: float = 0.5,
    smoothing: float = 0.0,
    flow: Mapping[str, Any] | None = None,
    stride: int = 1,
    progress: bool = True,
) -> dict[str, Any]:
    """Segment the frames of a video and write the results.

    ::

        <out_dir>/{clusters,merged,classes}/<head>/000000.png, ...   masks, as `predict_images` writes them
        <out_dir>/overlay.mp4                                        the overlay's head over the video
        <out_dir>/summary.json                                       settings, colours, speed, pixels of every cluster

    One frame at a time is held. Every few frames ``<out_dir>/progress`` notes how far the work is: the same call goes
    on from there, with the same result, and does nothing where all is done. A single frame is segmented, too.

    Args:
        inferencer: Model and options.
        video: File.
        out_dir: Made if absent.
        overlay: Head to draw over the frames, None for no overlay.
        opacity: Of its colours.
        smoothing: Weight of the past, see `CodeSmoother`; 0 for none.
        flow: Config of the estimator for it; by default OpenCV's DIS.
        stride: Every so many frames one is segmented.
        progress: Draw progress bars on stderr.

    Returns:
        The content of ``summary.json``. ``frames_per_second`` is that of the whole, ``forward_per_second`` that of the
        network's forward pass alone, in frames that this call segmented.

    Raises:
        FileNotFoundError: No such video.
        VideoError: It is empty, broken, or ends before its header says; an OSError.
        ValueError: An unknown head, a change of size within the video, a flow that would reach nothing, or results of
            other settings in ``out_dir``.
    """
    out_dir, start = Path(out_dir), time.monotonic()
    if overlay is not None and overlay not in inferencer.heads:
        raise ValueError(f'there is no head {overlay!r} to overlay; the model has {", ".join(inferencer.heads)}.')
    if flow is not None and not smoothing:
        raise ValueError(f'flow={dict(flow)} reaches nothing without smoothing; set smoothing above 0')
    frames = VideoFrames(video, stride)
    smoother = CodeSmoother(smoothing, build_flow(flow)) if smoothing else None
    palettes = head_palettes(inferencer)
    heads = describe_heads(inferencer, palettes)
    settings = dict(
        prediction_settings(inferencer), video=_identity(video), stride=stride, smoothing=smoothing,
        flow=repr(smoother and smoother.flow), overlay=overlay, opacity=opacity,
    )  # fmt: skip
    state = VideoState(out_dir, settings, [f'clusters/{head}' for head in inferencer.heads])
    if state.summary is not None:
        MMLogger.get_current_instance().info(f'{out_dir} holds the results of {video} already')
        return state.summary
    state.restore(smoother)
    state.remember_settings()
    begun, forward = state.frames, 0.0
    if frames.promised == 1:
        only = 'has a single frame' if stride == 1 else f'gives a single frame by a stride of {stride}'
        MMLogger.get_current_instance().warning(f'the video {video} {only}')
    with progress_bar(progress) as bar:
        task = bar.add_task('segmenting', total=frames.promised or None, completed=begun)
        for frame in frames.iterate(begun):
            def change(code: Tensor, pixels: np.ndarray) -> Tensor:
                return code if smoother is None else smoother(code, pixels, _padded(inferencer, pixels))

            examined = inferencer.examine(frame, change)
            forward += examined.seconds
            entry = write_masks(out_dir, f'{state.frames:06d}', examined.segmentation, inferencer, palettes)
            state.add(entry['pixels'], smoother)
            bar.advance(task)
        state.save(smoother)
        done, seconds = state.frames - begun, time.monotonic() - start
        if overlay is not None:
            task = bar.add_task('drawing', total=state.frames)
            _draw(out_dir, frames, inferencer, overlay, palettes[overlay], opacity, lambda: bar.advance(task))
    height, width = frames.size
    summary = dict(
        heads, video=os.fspath(video), frames=state.frames, height=height, width=width, stride=stride,
        smoothing=smoothing, video_frames_per_second=frames.frames_per_second, pixels=state.pixels,
        overlay=OVERLAY if overlay is not None else None, seconds=round(seconds, 2),
        seconds_of_overlay=round(time.monotonic() - start - seconds, 2),
        frames_per_second=round(done / seconds, 2) if done else None,
        forward_per_second=round(done / forward, 2) if done else None,
    )  # fmt: skip
    state.finish(summary)
    return summary


def _identity(video: str | os.PathLike[str]) -> list[Any]:
    state = os.stat(video)
    return [os.path.basename(video), state.st_size, state.st_mtime_ns]


def _padded(inferencer: SegmentationInferencer, pixels: np.ndarray) -> tuple[int, int]:
    image = torch.zeros((3, *pixels.shape[:2]), dtype=torch.uint8)
    inputs = inferencer.model.data_preprocessor(dict(inputs=[image]), False)['inputs']
    return int(inputs.shape[-2]), int(inputs.shape[-1])


def _draw(
    out_dir: Path,
    frames: VideoFrames,
    inferencer: SegmentationInferencer,
    head: str,
    palette: np.ndarray,
    opacity: float,
    advance: Any,
) -> None:
    """Draw the masks of a head over the frames; the video appears complete or not at all."""
    temporary, writer, metainfo = out_dir / f'.part.{OVERLAY}', None, None
    try:
        for number, frame in enumerate(frames):
            with Image.open(out_dir / 'clusters' / head / f'{number:06d}.png') as mask:
                labels = np.asarray(mask)
            if metainfo is None:
                metainfo = inferencer.metainfo_of(frame)
            image = fit_image(frame[..., ::-1], labels.shape, metainfo).astype(np.float32)
            blended = ((1 - opacity) * image + opacity * palette[labels]).round().astype(np.uint8)
            if writer is None:
                size = (labels.shape[1], labels.shape[0])
                speed = (frames.frames_per_second or UNKNOWN_SPEED) / frames.stride
                writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*'mp4v'), speed, size)
                if not writer.isOpened():
                    raise OSError(
                        f'OpenCV cannot write {temporary}: it lacks the codec mp4v, or the folder cannot be written; '
                        'overlay=None (--overlay none) writes the masks alone'
                    )
            writer.write(np.ascontiguousarray(blended[..., ::-1]))
            advance()
        if writer is not None:
            writer.release()
            os.replace(temporary, out_dir / OVERLAY)
    finally:
        if writer is not None:
            writer.release()
        temporary.unlink(missing_ok=True)
