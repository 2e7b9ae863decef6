"""Makes the straight-line derivation importable and sets mmseg's registries and the seed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import omh_mmseg  # noqa: F401

# Tests are imported by path, which leaves their folder out of the search path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def scope(mmseg_scope: None) -> None:
    """mmseg's registries and a fixed seed."""
