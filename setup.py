"""Build entry for tools that call it; the metadata and tool settings are in ``pyproject.toml``."""

from setuptools import setup

setup()
