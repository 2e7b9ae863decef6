"""Makes the straight-line derivation importable and sets mmseg's registries and the seed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope, init_default_scope

import omh_mmseg  # noqa: F401

# Tests are imported by path, which leaves their folder out of the search path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    """mmseg's registries and a fixed seed."""
    torch.manual_seed(0)
    init_default_scope('mmseg')
    yield
    DefaultScope._instance_dict.clear()
