"""What is said of a module once."""

from __future__ import annotations

from typing import Any

from mmengine.logging import MMLogger


def warn_once(owner: Any, message: str) -> None:
    """Warn, unless this object has warned before."""
    if not vars(owner).get('_has_warned', False):
        owner._has_warned = True
        MMLogger.get_current_instance().warning(message)
