"""Which files count as images: those that Pillow reads."""

from __future__ import annotations

from PIL import Image, ImageFile

UNREAD = ('EPS', 'MPEG')
"""Formats that Pillow tells from others and cannot decode by itself, beside those of its ``StubImageFile``."""


def image_suffixes() -> tuple[str, ...]:
    """Endings in lower case of the files that Pillow reads, those of plugins that a program has registered included."""
    Image.init()
    return tuple(sorted(suffix for suffix, name in Image.registered_extensions().items() if _is_read(name)))


def _is_read(name: str) -> bool:
    if name not in Image.OPEN or name in UNREAD:
        return False
    opener = Image.OPEN[name][0]
    return not (isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile))
