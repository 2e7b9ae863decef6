"""Folders that the commands write: what lies in them is no photo, and results of other settings are not mixed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
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


def check_results(out_dir: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder with predictions by other settings; warn of those by the same ones, which stay.

    Raises:
        ValueError: It holds them.
    """
    try:
        earlier = json.loads((out_dir / PREDICTIONS).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return
    if not isinstance(earlier, dict) or not earlier.get('images'):
        return
    known = earlier.get('settings') or {}
    differing = sorted(name for name, value in settings.items() if known.get(name) != json.loads(json.dumps(value)))
    if differing:
        raise ValueError(
            f'{out_dir} holds predictions by another model or other settings ({", ".join(differing)}), which would be '
            'mixed with these. Choose another folder with --out-dir, or remove that one'
        )
    MMLogger.get_current_instance().warning(
        f'{out_dir} holds predictions by the same model: masks of images that are not among the new ones stay there, '
        f'and {PREDICTIONS} will name the new ones alone'
    )


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
