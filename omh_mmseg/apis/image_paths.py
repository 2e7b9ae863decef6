"""Which images a command line means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from omh_mmseg.apis.inference import list_folder
from omh_mmseg.datasets.video.reader import is_video
from omh_mmseg.shipped import command_line
from omh_mmseg.utils.text import first_few


def collect_images(paths: Sequence[str]) -> tuple[list[str], str | None, list[tuple[str, str]]]:
    """Images of files and folders in any mixture, each once, also where several of the paths or links lead to it.

    Args:
        paths: Files and folders; folders are searched recursively.

    Returns:
        The images in the order given, and the folder that the names of their results are relative to: the folder, if
        one is given and nothing else; None for files alone, which are named by themselves; else the nearest folder
        above all that is given. Last, (path, reason) of what is left out of the folders.

    Raises:
        FileNotFoundError: Something given does not exist, or a folder has no images; names it.
        ValueError: One is a video, or see `find_images` of `omh_mmseg.apis.inference`.
    """
    absent = [f'no {"image" if Path(path).suffix else "folder"} {path}' for path in paths if not os.path.exists(path)]
    if absent:
        raise FileNotFoundError(f'there is {", ".join(absent)} (looked from {Path.cwd()})')
    videos = [path for path in paths if os.path.isfile(path) and is_video(path)]
    if videos:
        raise ValueError(
            f'images are wanted here, and no videos ({first_few(videos)}): {command_line("predict.py")} segments '
            'those, and their frames as image files are welcome'
        )
    images: dict[str, str] = {}
    named: set[str] = set()
    skipped: dict[str, tuple[str, str]] = {}
    for path in paths:
        found, left_out = [path], []
        if os.path.isdir(path):
            listing = list_folder(path)
            found, left_out = sorted(listing.images.values()), listing.skipped
        for image in found:
            entry = _entry(image)
            if images.setdefault(os.path.realpath(image), image) == image:
                named.add(entry)
            elif entry not in named:
                skipped.setdefault(entry, (image, 'the same file as another image'))
        for name, reason in left_out:
            skipped.setdefault(_entry(name), (name, reason))
    told = [each for entry, each in skipped.items() if entry not in named]
    folders = [path for path in paths if os.path.isdir(path)]
    if not folders:
        return list(images.values()), None, told
    if len(paths) == 1:
        return list(images.values()), paths[0], told
    above = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return list(images.values()), above, told


def _entry(path: str) -> str:
    """What tells the entries of folders apart, by whatever way they are reached: not what a link leads to."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)
