"""Which files count as images: those that Pillow reads."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageFile

from omh_mmseg.utils.text import first_few

UNREAD = ('EPS', 'MPEG')
"""Formats that Pillow tells from others and cannot decode by itself, beside those of its ``StubImageFile``."""
COMMON = ('.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def image_suffixes() -> tuple[str, ...]:
    """Endings in lower case of the files that Pillow reads, those of plugins that a program has registered included."""
    Image.init()
    return tuple(sorted(suffix for suffix, name in Image.registered_extensions().items() if _is_read(name)))


def describe_suffixes(suffixes: Sequence[str]) -> str:
    """The endings for a message, those that everybody knows first."""
    return first_few(sorted(suffixes, key=lambda suffix: (suffix not in COMMON, suffix)), len(COMMON))


def _is_read(name: str) -> bool:
    if name not in Image.OPEN or name in UNREAD:
        return False
    opener = Image.OPEN[name][0]
    return not (isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile))
