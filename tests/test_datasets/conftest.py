"""mmseg's registries."""

from __future__ import annotations

import sys

import pytest
from mmengine.registry import init_default_scope

import omh_mmseg  # noqa: F401


@pytest.fixture(autouse=True)
def scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmseg's registries, and a command line that names no config."""
    init_default_scope('mmseg')
    monkeypatch.setattr(sys, 'argv', ['pytest'])
