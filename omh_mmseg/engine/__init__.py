"""Hooks that belong to no upstream project."""

from omh_mmseg.engine import hooks

__all__ = ['hooks']
