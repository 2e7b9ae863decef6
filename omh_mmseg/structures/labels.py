"""The label of pixels without a class."""

from __future__ import annotations

IGNORED_LABEL = 255
"""Label of pixels that belong to no class: neither trained on nor scored, in files and in memory."""
