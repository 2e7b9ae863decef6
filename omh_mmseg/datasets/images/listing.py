"""The images below a folder, and what is left out of them."""

from __future__ import annotations

import functools
import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mmengine.logging import MMLogger

from omh_mmseg.datasets.images.formats import image_suffixes
from omh_mmseg.utils.text import first_few


@dataclass
class Listing:
    """What a folder holds.

    Attributes:
        images: Path by path relative to the folder without ending, sorted by folder and name.
        skipped: (path, reason) of every file and folder that is left out.
    """

    images: dict[str, str] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def describe_skipped(self) -> str:
        """How many entries were left out, by reason, in one line; empty for none."""
        reasons = Counter(reason for _, reason in self.skipped)
        examples = {reason: [path for path, why in self.skipped if why == reason] for reason in reasons}
        return '; '.join(
            f'{count} left out, {reason} ({first_few(examples[reason], 2)})' for reason, count in reasons.most_common()
        )


def list_images(
    folder: str | os.PathLike[str], suffixes: Sequence[str] | None = None, recursive: bool = True
) -> Listing:
    """List the images below a folder.

    Links are followed. An image or folder that is reached several times, as in a loop of links, counts once: by the
    path that has no link in it where there is one.

    Args:
        folder: The folder.
        suffixes: Endings in lower case; those of the files may have any. None: what Pillow reads, see `image_suffixes`.
        recursive: Whether to look into its sub-folders.

    Raises:
        ValueError: Two images share a stem.
    """
    suffixes = image_suffixes() if suffixes is None else tuple(suffixes)
    top, listing = os.fspath(folder), Listing()
    seen: set[str] = set()
    files: list[tuple[bool, str, str]] = []
    # Linked folders wait until all others have been visited.
    pending, linked = deque([(top, False)]), deque[tuple[str, bool]]()
    while pending or linked:
        directory, by_link = pending.popleft() if pending else linked.popleft()
        real = os.path.realpath(directory)
        if real in seen:
            listing.skipped.append((directory, 'a link to a folder that counts already'))
            continue
        seen.add(real)
        try:
            with os.scandir(directory) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError as error:
            if directory == top:
                raise
            listing.skipped.append((directory, f'a folder that cannot be read ({type(error).__name__})'))
            continue
        for entry in entries:
            if _is(entry.is_dir):
                if recursive and not entry.name.startswith('.'):
                    through = by_link or entry.is_symlink()
                    (linked if through else pending).append((entry.path, through))
                elif recursive:
                    listing.skipped.append((entry.path, 'a hidden folder'))
                continue
            reason = _reason(entry, suffixes)
            if reason is not None:
                listing.skipped.append((entry.path, reason))
            elif entry.is_symlink():
                files.append((True, entry.path, os.path.realpath(entry.path)))
            else:
                files.append((by_link, entry.path, os.path.join(real, entry.name)))
    _enter(listing, top, files)
    return listing


def images_by_stem(
    folder: str | os.PathLike[str], suffixes: Sequence[str] | None = None, recursive: bool = True
) -> dict[str, str]:
    """Paths of the images below a folder, by their path relative to it without ending; see `list_images`.

    What is left out is told once.
    """
    listing = list_images(folder, suffixes, recursive)
    if listing.images:
        tell_skipped(folder, listing)
    return listing.images


def tell_skipped(folder: str | os.PathLike[str], listing: Listing) -> None:
    """One warning of what a listing leaves out, if anything; the same one is not repeated."""
    if listing.skipped:
        _tell(f'{os.fspath(folder)}: {len(listing.images)} images, {listing.describe_skipped()}')


def _is(test: Callable[[], bool]) -> bool:
    """What an entry says of itself; False for links that lead to themselves, as for those that lead nowhere."""
    try:
        return test()
    except OSError:
        return False


def _reason(entry: os.DirEntry, suffixes: Sequence[str]) -> str | None:
    """Why a file is no image; None for one."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if entry.name.startswith('.'):
        return 'a hidden file'
    if not _is(entry.is_file):
        return 'a link to nothing' if entry.is_symlink() else 'not a file'
    if suffix not in suffixes:
        return f'no image ending ({suffix or "none"})'
    return None


def _enter(listing: Listing, top: str, files: list[tuple[bool, str, str]]) -> None:
    """The files (reached by a link, path, real path) as images, each once and sorted."""
    owners: dict[str, str] = {}
    for _, path, real in sorted(files):
        if owners.setdefault(real, path) != path:
            listing.skipped.append((path, 'the same file as another image'))
    for path in sorted(owners.values(), key=lambda path: (os.path.dirname(path), os.path.basename(path))):
        key = os.path.splitext(os.path.relpath(path, top))[0]
        if key in listing.images:
            raise ValueError(
                f'{listing.images[key]} and {path} have the same stem {key!r}: labels and predictions go by the stem, '
                'so rename or remove one of them'
            )
        listing.images[key] = path


@functools.cache
def _tell(message: str) -> None:
    MMLogger.get_current_instance().warning(message)
