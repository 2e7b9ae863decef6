"""mmseg's registries."""

from __future__ import annotations

import pytest
from mmengine.registry import init_default_scope

import omh_mmseg  # noqa: F401


@pytest.fixture(autouse=True)
def scope() -> None:
    """mmseg's registries."""
    init_default_scope('mmseg')
