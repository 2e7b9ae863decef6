"""What data samples of video say of time, and the view of a later frame."""

from __future__ import annotations

LATER = 'later'
"""View of a later (or earlier) frame beside that of a frame."""
FLOW = 'flow_to_later'
"""Field (3, h, w): mean flow over cells to that frame, in pixels of the input, and the visible share of each cell."""
FLOW_BEFORE = 'flow_to_before'
"""Field (3, H, W): flow to the frame before, in pixels of the file, and 1 where that frame shows the pixel."""
SEQUENCE, SECONDS = 'sequence', 'seconds_passed'
"""Metadata: the sequence, and the time since the frame before, None where it is not known."""
