"""Frozen features on disk, in place of forward passes of the backbone."""
