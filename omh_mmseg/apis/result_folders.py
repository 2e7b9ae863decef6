"""Folders that the commands write: what lies in them is no photo, and results of two models are not mixed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger

from omh_mmseg.datasets.images.listing import Listing

PREDICTIONS = 'summary.json'
MASKS = ('clusters', 'merged', 'classes', 'overlays')
"""Folders of masks and overlays beside it."""
PAGE, REPORT = 'index.html', 'explorer.json'
IMAGES, LABELS = 'images', 'labels'
"""Folders of a data set in the layout of `FolderSegDataset`."""


def leave_out_results(root: Path, listing: Listing) -> Listing:
    """A listing of the images below a folder without masks, overlays, pages of a hierarchy, and labels.

    Args:
        root: The folder. Labels are what lies in its ``labels``, where it has ``images``, too.
        listing: Of it; what is left out is among ``skipped`` of the result.
    """
    reasons: dict[Path, str | None] = {}
    kept = Listing(skipped=list(listing.skipped))
    for key, path in listing.images.items():
        folder = Path(path).parent
        if folder not in reasons:
            reasons[folder] = next(_reasons(root, folder), None)
        reason = reasons[folder]
        if reason is None:
            kept.images[key] = path
        else:
            kept.skipped.append((path, reason))
    return kept


def make_room(out_dir: Path, settings: Mapping[str, Any]) -> None:
    """Remove the predictions by another model or other settings that a folder has, or warn of those by the same ones.

    Args:
        out_dir: Whose ``summary.json`` lists them; nothing else is touched.
        settings: Of the predictions that are about to be written, as plain data.
    """
    try:
        earlier = json.loads((out_dir / PREDICTIONS).read_text(encoding='utf-8'))
        entries = list(earlier['images'])
        files = [file for entry in entries for file in _files(entry)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # none, or the summary of a video
    logger, known = MMLogger.get_current_instance(), earlier.get('settings')
    if entries and known == json.loads(json.dumps(settings)):
        logger.warning(
            f'{out_dir} holds predictions by the same model: masks of images that are not among the new ones stay '
            f'there, and {PREDICTIONS} will name the new ones alone'
        )
        return
    logger.warning(f'the {len(entries)} predictions by another model or other settings in {out_dir} are replaced')
    (out_dir / PREDICTIONS).unlink()
    top = out_dir.resolve()
    for name in files:
        file = (top / name).resolve()
        if file.is_relative_to(top) and file.relative_to(top).parts[0] in MASKS:
            file.unlink(missing_ok=True)
            for folder in takewhile(lambda folder: folder != top and not any(folder.iterdir()), file.parents):
                folder.rmdir()


def _files(entry: Mapping[str, Any]) -> list[str]:
    """Of an image, below the folder of the summary that has the entry."""
    masks = [file for heads in entry['masks'].values() for file in heads.values()]
    return masks + ([entry['overlay']] if entry.get('overlay') else [])


def _reasons(root: Path, folder: Path) -> Iterator[str]:
    """Why images in a folder at or below ``root`` are no photos."""
    inner = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    for depth in range(len(inner) + 1):
        place = root.joinpath(*inner[:depth])
        below = inner[depth] if depth < len(inner) else None
        if (place / PAGE).is_file() and (place / REPORT).is_file():
            yield 'the page of a hierarchy'
        if (place / PREDICTIONS).is_file() and (place / MASKS[0]).is_dir() and (place != root or below in MASKS):
            yield 'predictions'
    if inner[:1] == (LABELS,) and os.path.isdir(root / IMAGES):
        yield f'labels of what is in {IMAGES}'
