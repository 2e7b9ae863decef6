"""How far the segmentation of a video is, on disk, so that it goes on after an end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger

from omh_mmseg.apis.result_folders import PREDICTIONS
from omh_mmseg.models.prediction.code_smoothing import CodeSmoother
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.text import first_few

FOLDER = 'progress'
INTERVAL = 25
"""Frames between two notes."""


class VideoState:
    """Frames that are done, the pixels of their clusters, and what a smoother remembers.

    Args:
        out_dir: Of the results.
        settings: What they depend on, as plain data.
        masks: Folders in ``out_dir`` that have a mask of each frame.

    Attributes:
        frames: Number of frames that are done.
        pixels: Head -> cluster -> pixels in all of them.
        summary: Of results that are complete; None where they are not.

    Raises:
        ValueError: The folder holds results of other settings.
    """

    def __init__(self, out_dir: Path, settings: Mapping[str, Any], masks: Sequence[str] = ()) -> None:
        self.folder, self.out_dir = out_dir / FOLDER, out_dir
        self.settings = json.loads(json.dumps(settings, default=str))
        self.frames, self.pixels = 0, dict[str, dict[str, int]]()
        self.summary: dict[str, Any] | None = None
        note = _read(self.folder / 'state.json')
        summary = _read(out_dir / PREDICTIONS)
        for known in (note, summary):
            if known is not None:
                self._compare(known.get('settings') or {})
        done = summary or note or dict(frames=0)
        lost = [name for name in masks if len(list((out_dir / name).glob('*.png'))) < done['frames']]
        if lost:
            MMLogger.get_current_instance().warning(
                f'{out_dir} lacks masks of frames that were done ({first_few(lost)}): all are made again'
            )
            (out_dir / PREDICTIONS).unlink(missing_ok=True)
        elif summary is not None:
            self.summary = summary
        elif note is not None:
            self.frames, self.pixels = note['frames'], note['pixels']

    def restore(self, smoother: CodeSmoother | None) -> None:
        """Give a smoother what it remembered."""
        if smoother is None or not self.frames:
            return
        with np.load(self._smoothed(self.frames), allow_pickle=False) as stored:
            smoother.code, smoother.pixels = torch.from_numpy(stored['code']), stored['pixels']

    def remember_settings(self) -> None:
        """Note the settings before the first result."""
        self._note()

    def add(self, pixels: Mapping[str, Mapping[str, int]], smoother: CodeSmoother | None) -> None:
        """A frame is done."""
        for head, counts in pixels.items():
            sums = self.pixels.setdefault(head, {})
            for cluster, count in counts.items():
                sums[cluster] = sums.get(cluster, 0) + count
        self.frames += 1
        if self.frames % INTERVAL == 0:
            self.save(smoother)

    def save(self, smoother: CodeSmoother | None) -> None:
        """Note how far it is: first what is remembered, then that it counts."""
        if smoother is not None and smoother.code is not None and smoother.pixels is not None:
            with replaced_when_complete(self._smoothed(self.frames)) as file:
                np.savez(file, code=smoother.code.cpu().numpy(), pixels=smoother.pixels)
        self._note()
        for old in self.folder.glob('smoothed_*.npz'):
            if old != self._smoothed(self.frames):
                old.unlink(missing_ok=True)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, and forget how far it was."""
        with replaced_when_complete(self.out_dir / PREDICTIONS) as file:
            text = json.dumps(dict(summary, settings=self.settings), indent=1, default=str)
            file.write(f'{text}\n'.encode())
        for path in [*self.folder.glob('smoothed_*.npz'), self.folder / 'state.json']:
            path.unlink(missing_ok=True)
        self.folder.rmdir()

    def _smoothed(self, frames: int) -> Path:
        return self.folder / f'smoothed_{frames:06d}.npz'

    def _note(self) -> None:
        with replaced_when_complete(self.folder / 'state.json') as file:
            file.write(json.dumps(dict(settings=self.settings, frames=self.frames, pixels=self.pixels)).encode())

    def _compare(self, known: Mapping[str, Any]) -> None:
        differing = [key for key in self.settings if known.get(key) != self.settings[key]]
        if differing:
            told = '; '.join(f'{key} was {known.get(key)} and is {self.settings[key]} now' for key in differing)
            raise ValueError(
                f'{self.out_dir} holds results of other settings: {told}. Choose another folder (--out-dir), or delete '
                'this one'
            )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f'{path} is damaged ({error}); delete its folder to begin anew') from error
    return content if isinstance(content, dict) else None
