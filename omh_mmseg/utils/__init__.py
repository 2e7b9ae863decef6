"""What all rooms use and no room owns."""

from __future__ import annotations


def register_all_modules() -> None:
    """Nothing: importing the package has entered all components. ``mmengine.hub.get_model`` calls this."""
