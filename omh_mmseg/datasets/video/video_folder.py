"""Sequences of frames: folders, names with numbers, or video files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from omh_mmseg.datasets.base import run_pipeline
from omh_mmseg.datasets.folder import FolderSegDataset
from omh_mmseg.datasets.images.load_image import reader_of
from omh_mmseg.datasets.images.reader import ImageReader
from omh_mmseg.datasets.video.reader import SUFFIXES, VideoFrames, is_video
from omh_mmseg.datasets.video.sequences import MISSING, NAMES, FrameInfo, frame_infos, frame_pattern
from omh_mmseg.registry import DATASETS
from omh_mmseg.utils.checks import COUNT, POSITIVE, ranges


@DATASETS.register_module()
class VideoFolder(FolderSegDataset):
    """A folder of frames or of videos, whose items know their sequence.

    Frames are files as `FolderSegDataset` finds them, with labels or without. Their names tell sequence and number:
    ``drive/000012.jpg``, or ``0001TP_006690.png``. Where a folder has no images but videos, each is a sequence without
    labels; ``data_root`` may also be a video. All frames have one size within a sequence of videos, and a video of one
    frame is an item that has no other frame beside it.

    Args:
        pattern: Regular expression for the names of frames without ending, see `frame_infos`.
        fps: Frames per second that the numbers of the frames count; of a video what its file says. None: not known.
        stride: Every so many frames of each sequence one is taken.
        missing: Where frames are missing, ``'split'`` begins a new sequence, ``'error'`` stops.
        **kwargs: As for `FolderSegDataset`.

    Raises:
        FileNotFoundError: See `FolderSegDataset`.
        ValueError: Likewise; names that do not fit the pattern, missing frames with ``'error'``, labels of videos.
        OSError: A video that cannot be read.
    """

    @ranges(fps=POSITIVE, stride=COUNT)
    def __init__(
        self, pattern: str = NAMES, fps: float | None = None, stride: int = 1, missing: str = 'split', **kwargs: Any
    ) -> None:
        if missing not in MISSING:
            raise ValueError(f'missing={missing!r} is unknown; choose one of {MISSING}')
        frame_pattern(pattern)
        self.pattern, self.fps, self.stride, self.missing = pattern, fps, stride, missing
        self._opened: tuple[int, VideoFrames] | None = None
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """List the frames, sorted by sequence and number; see `FolderSegDataset`."""
        try:
            folder, _, _ = self._find_folders()
        except FileNotFoundError:
            videos = self._videos()
            if not videos:
                raise
            return [item for video in videos for item in self._frames_of(video)]
        items = super().load_data_list()
        names = [os.path.splitext(os.path.relpath(item['img_path'], folder))[0].replace(os.sep, '/') for item in items]
        infos = frame_infos(names, self.pattern, self.fps, self.missing)
        chosen = [
            item | replace(info, place=info.place // self.stride).as_info()
            for item, info in zip(items, infos) if info.place % self.stride == 0
        ]  # fmt: skip
        return sorted(chosen, key=lambda item: (item['sequence'], item['frame']))

    def prepare_data(self, idx: int) -> Any:
        """Load item ``idx``; see `FileSegDataset`."""
        info = self.get_data_info(idx)
        if 'video_path' not in info:
            return super().prepare_data(idx)
        path = info['img_path']
        item = run_pipeline(self.pipeline, info | dict(img=self._frame(info)))
        samples = item.get('data_samples', []) if isinstance(item, dict) else []
        # Test-time augmentation makes several of one.
        for sample in samples if isinstance(samples, list) else [samples]:
            sample.set_metainfo(dict(img_path=path))
        return item

    def read_frame(self, idx: int) -> np.ndarray:
        """Pixels (H, W, 3), uint8, RGB, of an item as its file has them."""
        info = self.get_data_info(idx)
        if 'video_path' in info:
            return np.ascontiguousarray(self._frame(info)[..., ::-1])
        reader = reader_of(self.pipeline.transforms) or ImageReader()
        return reader.read(info['img_path'], self.turn_images).rgb

    def _videos(self) -> list[str]:
        root = Path(self.data_root)
        if root.is_file() and is_video(root):
            return [str(root)]
        images = Path(self.data_prefix['img_path'])
        for folder in (images / self.split, images, root):
            found = sorted(str(path) for path in folder.glob('*') if is_video(path)) if folder.is_dir() else []
            if found:
                return found
        return []

    def _frames_of(self, video: str) -> list[dict]:
        if self.labels == 'required':
            raise ValueError(f"{video} is a video, and videos have no labels; set labels='auto' or 'none'")
        frames = VideoFrames(video, self.stride)
        fps, name = self.fps or frames.frames_per_second, Path(video).name
        return [
            dict(img_path=f'{video}/{number * self.stride:06d}', video_path=video)
            | FrameInfo(
                name, number * self.stride, number, number * self.stride / fps if fps else None
            ).as_info()
            for number in range(frames.count())
        ]  # fmt: skip

    def _frame(self, info: dict[str, Any]) -> np.ndarray:
        # A video that is open does not follow into the processes of a loader.
        if self._opened is None or self._opened[0] != os.getpid() or self._opened[1].path != info['video_path']:
            self._opened = os.getpid(), VideoFrames(info['video_path'], self.stride)
        return self._opened[1].frame(info['frame'] // self.stride)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict(_opened=None)


def videos_among(paths: Sequence[str]) -> list[str]:
    """Those of some paths that are files of videos by their ending, in lower or upper case.

    Raises:
        FileNotFoundError: One of them is not there.
    """
    videos = [path for path in paths if is_video(path) and not os.path.isdir(path)]
    absent = [path for path in videos if not os.path.isfile(path)]
    if absent:
        raise FileNotFoundError(f'there is no video {", ".join(absent)} (looked from {Path.cwd()})')
    return videos


def videos_in(folders: Sequence[str]) -> list[str]:
    """Files of videos in some folders, at any depth."""
    return sorted(str(path) for folder in folders for path in Path(folder).rglob('*') if is_video(path))


__all__ = ['SUFFIXES', 'VideoFolder', 'videos_among', 'videos_in']
