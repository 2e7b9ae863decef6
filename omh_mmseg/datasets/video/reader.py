"""Frames of a video file, by mmcv's reader, or by PyAV where OpenCV cannot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np

SUFFIXES = ('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.flv', '.ogv', '.ts')
"""Endings of files that are taken for videos."""
COUNTED = ('.mp4', '.m4v', '.mov', '.avi')
"""Endings of containers that hold the number of their frames; of others it is guessed from the longest stream."""
LENIENCE = 1
"""So many frames fewer than the header promises are taken for a rounding of its duration."""


class VideoError(OSError):
    """A video that cannot be read, or not to its end."""


class VideoSizeError(VideoError, ValueError):
    """A video whose frames change their size."""


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a path ends as a video file does."""
    return Path(path).suffix.lower() in SUFFIXES


class VideoFrames:
    """The frames of a video, in order or by number; nothing is kept of those that were read.

    Args:
        path: File.
        stride: Every so many frames one is taken.

    Attributes:
        frames_per_second: Of the file; 0 where it does not say.
        size: Height and width of the first frame.
        promised: Number of frames that the header promises, taken by the stride; 0 where it promises none.
        counted: Whether the header knows; otherwise the number is a guess, and may be too large.

    Raises:
        FileNotFoundError: No such file.
        OSError: An empty file, or one without a frame that can be decoded.
    """

    def __init__(self, path: str | os.PathLike[str], stride: int = 1) -> None:
        if stride < 1:
            raise ValueError(f'the stride of frames must be at least 1; got {stride}')
        self.path, self.stride = os.fspath(path), stride
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f'there is no video {self.path} (looked from {Path.cwd()})')
        if not os.path.getsize(self.path):
            raise VideoError(f'the video {self.path} is empty')
        self._frames: Any = _MMCVFrames(self.path)
        first = self._frames.get(0)
        if first is None:
            self._frames = _pyav(self.path)
            first = self._frames.get(0)
        if first is None:
            raise VideoError(
                f'the video {self.path} has no frame that can be decoded: it is broken, or of a codec that is not '
                'installed. Where another player shows it, pip install av, or convert it: ffmpeg -i IN -c:v libx264 OUT'
            )
        self.frames_per_second: float = self._frames.frames_per_second
        self.size: tuple[int, int] = first.shape[:2]
        self.promised = -(-self._frames.promised // stride)
        self.counted = os.path.splitext(self.path)[1].lower() in COUNTED

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.iterate()

    def iterate(self, first: int = 0) -> Iterator[np.ndarray]:
        """Frames (H, W, 3), uint8, BGR, from one on.

        Args:
            first: Counted by the stride.

        Raises:
            ValueError: A frame has another size than the first.
            OSError: The video ends before what its header promises, by more than a frame.
        """
        number = first
        while True:
            frame = self._frames.get(number * self.stride)
            if frame is None:
                break
            yield self._checked(frame, number)
            number += 1
        if number == 0 or (self.counted and number < self.promised - LENIENCE):
            raise VideoError(
                f'the video {self.path} is broken: it ends after {number} frames, and its header promises '
                f'{self.promised}. Frames up to there were read'
            )

    def count(self) -> int:
        """Number of frames that can be read by their number; where the header does not know, all are read for it.

        Raises:
            OSError: The header promises more than a frame more than there are.
        """
        if not self.counted or not self.promised:
            return sum(1 for _ in self.iterate())
        for count in range(self.promised, max(0, self.promised - LENIENCE - 1), -1):
            if self._frames.get((count - 1) * self.stride) is not None:
                return count
        raise VideoError(
            f'the video {self.path} is broken: its header promises {self.promised} frames, and the last of them cannot '
            'be decoded. Cut it (ffmpeg -i IN OUT.mp4), or extract its frames'
        )

    def frame(self, number: int) -> np.ndarray:
        """One frame (H, W, 3), uint8, BGR.

        Raises:
            OSError: It cannot be decoded.
            ValueError: It has another size than the first.
        """
        frame = self._frames.get(number * self.stride)
        if frame is None:
            raise VideoError(f'the video {self.path} is broken: frame {number * self.stride} cannot be decoded')
        return self._checked(frame, number)

    def _checked(self, frame: np.ndarray, number: int) -> np.ndarray:
        if frame.shape[:2] != self.size:
            raise VideoSizeError(
                f'the size changes within {self.path}: its first frame has {self.size[1]} x {self.size[0]} pixels and '
                f'frame {number * self.stride} has {frame.shape[1]} x {frame.shape[0]}; cut the video there'
            )
        return frame


class _MMCVFrames:
    """By mmcv, that is OpenCV; in order it decodes, otherwise it seeks."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open()
        count = 0 if self._reader is None else self._reader.frame_cnt
        self.promised = max(0, int(count))
        self.frames_per_second = 0.0 if self._reader is None else float(self._reader.fps or 0)

    def _open(self) -> None:
        self._next = 0
        try:
            # A cache of mmcv's would keep frames; 1 is the least that it takes.
            self._reader = mmcv.VideoReader(self._path, cache_capacity=1)
        except (OSError, cv2.error):
            self._reader = None

    def get(self, number: int) -> np.ndarray | None:
        if number == 0 < self._next:
            # OpenCV does not find the only frame of a video again.
            self._open()
        if self._reader is None:
            return None
        capture = self._reader.vcap
        if number < self._next or number - self._next > 64:
            capture.set(cv2.CAP_PROP_POS_FRAMES, number)
            self._next = number
        while self._next < number:
            if not capture.grab():
                return None
            self._next += 1
        read, frame = capture.read()
        self._next += 1
        return frame if read else None


class _AVFrames:
    """By PyAV; going back starts again from the beginning."""

    def __init__(self, path: str, av: Any) -> None:
        self._av, self._path = av, path
        self._start()
        stream = self._container.streams.video[0]
        self.promised = int(stream.frames or 0)
        self.frames_per_second = float(stream.average_rate or 0)

    def _start(self) -> None:
        self._container = self._av.open(self._path)
        self._decoded = self._container.decode(video=0)
        self._next = 0

    def get(self, number: int) -> np.ndarray | None:
        if number < self._next:
            self._container.close()
            self._start()
        try:
            for frame in self._decoded:
                self._next += 1
                if self._next > number:
                    pixels = frame.to_ndarray(format='bgr24')
                    # OpenCV turns frames as the file asks for; PyAV leaves it to its caller.
                    return np.ascontiguousarray(np.rot90(pixels, round(getattr(frame, 'rotation', 0) / 90) % 4))
        except self._av.error.FFmpegError:
            return None
        return None


def _pyav(path: str) -> Any:
    """PyAV's reader; what finds no frame where it is not installed, or cannot open the file either."""
    try:
        import av
    except ImportError:
        return _MMCVFrames(path)
    try:
        return _AVFrames(path, av)
    except (av.error.FFmpegError, IndexError):
        return _MMCVFrames(path)
