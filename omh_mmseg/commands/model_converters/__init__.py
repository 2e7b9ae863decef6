"""Checkpoints of other programs as those of this library."""
