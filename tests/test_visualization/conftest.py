"""Hierarchies that look like learned ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from omh_mmseg.transport import Hierarchy


@pytest.fixture(scope='session')
def make_hierarchy() -> Callable[..., Hierarchy]:
    """Make a hierarchy whose finer cluster j belongs to a known, shuffled parent with a share of 0.7 to 0.95."""

    def make(sizes: Sequence[int] = (6, 12, 24), seed: int = 0) -> Hierarchy:
        rng = np.random.default_rng(seed)
        plans = []
        for coarse, fine in zip(sizes, sizes[1:], strict=False):
            parents = rng.permutation(np.arange(fine) % coarse)
            plan = rng.random((coarse, fine))
            plan[parents, np.arange(fine)] = 0
            plan *= rng.uniform(0.05, 0.3, fine) / np.maximum(plan.sum(axis=0), 1e-9)
            plan[parents, np.arange(fine)] = 1 - plan.sum(axis=0)
            plans.append(torch.from_numpy(plan / fine))
        return Hierarchy.from_plans(sizes, plans)

    return make
