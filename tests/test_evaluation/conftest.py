"""Makes the samples importable, and what the metric logs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

# Tests are imported by path, which leaves their folder out of the search path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def messages(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What the metric logs."""
    logger = MMLogger.get_instance(request.node.nodeid)
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(f'{record.levelname}: {record.getMessage()}')  # type: ignore[method-assign]
    logger.addHandler(handler)
    yield seen
    logger.removeHandler(handler)
