"""Which of many things to look at."""

from __future__ import annotations

import numpy as np


def evenly_spread(count: int, most: int) -> list[int]:
    """At most so many different numbers of ``range(count)``, evenly spread, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist() if count else []
