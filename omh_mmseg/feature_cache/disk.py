"""Room on disks."""

from __future__ import annotations

import shutil
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """Free space of the disk that a folder is on or would be made on."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def gibibytes(count: float) -> str:
    """Bytes as text."""
    return f'{count / 2**30:.2f} GiB'
