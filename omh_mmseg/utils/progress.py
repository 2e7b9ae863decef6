"""Progress of long work."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress


def progress_bar(enabled: bool) -> Progress:
    """A progress bar on stderr."""
    return Progress(console=Console(stderr=True), disable=not enabled)
