"""The one progress bar of all long work: preparation of data, of neighbours and of cached features."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress


def progress_bar(enabled: bool) -> Progress:
    """A progress bar on stderr, a context manager; tasks are added and advanced as `rich` has it.

    Args:
        enabled: False draws nothing.
    """
    return Progress(console=Console(stderr=True), disable=not enabled)
