"""Which images a command line means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from omh_mmseg.apis.inference import list_folder


def collect_images(paths: Sequence[str]) -> tuple[list[str], str | None, list[tuple[str, str]]]:
    """Images of files and folders in any mixture, each once.

    Args:
        paths: Files and folders; folders are searched recursively.

    Returns:
        The images in the order given, and the folder that the names of their results are relative to: the folder, if
        one is given and nothing else; None for files alone, which are named by themselves; else the nearest folder
        above all that is given. Last, (path, reason) of what is left out of the folders.

    Raises:
        FileNotFoundError: Something given does not exist, or a folder has no images; names it.
        ValueError: See `find_images` of `omh_mmseg.apis.inference`.
    """
    absent = [f'no {"image" if Path(path).suffix else "folder"} {path}' for path in paths if not os.path.exists(path)]
    if absent:
        raise FileNotFoundError(f'there is {", ".join(absent)} (looked from {Path.cwd()})')
    images: dict[str, str] = {}
    skipped: list[tuple[str, str]] = []
    for path in paths:
        found = [path]
        if os.path.isdir(path):
            listing = list_folder(path)
            found = sorted(listing.images.values())
            skipped += listing.skipped
        for image in found:
            images.setdefault(os.path.abspath(image), image)
    folders = [path for path in paths if os.path.isdir(path)]
    if not folders:
        return list(images.values()), None, skipped
    if len(paths) == 1:
        return list(images.values()), paths[0], skipped
    above = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return list(images.values()), above, skipped
