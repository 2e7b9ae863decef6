"""A page to walk through a learned hierarchy: the tree, and images at every level of it."""

from omh_mmseg.explorer.report import ReportOptions, write_report

__all__ = ['ReportOptions', 'write_report']
