from __future__ import annotations

import pytest
import torch

from omh_mmseg.models.losses import HierarchyMatchingLoss
from omh_mmseg.registry import MODELS


def example(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    coarse = torch.softmax(3 * torch.randn(7, 3, dtype=dtype), 1)
    fine = torch.softmax(3 * torch.randn(7, 5, dtype=dtype), 1)
    plan = torch.rand(3, 5, dtype=dtype)
    return coarse, fine, plan / plan.sum()


def by_loops(coarse: torch.Tensor, fine: torch.Tensor, plan: torch.Tensor, direction: str, conditioning: str) -> float:
    """docs/methods/omh.md 2.4, entry by entry."""
    if direction == 'both':
        return sum(by_loops(coarse, fine, plan, one, conditioning) for one in ('fine_to_coarse', 'coarse_to_fine')) / 2
    table = plan.tolist() if direction == 'coarse_to_fine' else plan.t().tolist()
    lower, higher = (coarse, fine) if direction == 'coarse_to_fine' else (fine, coarse)
    if conditioning == 'row':
        table = [[value / sum(row) for value in row] for row in table]
    total = 0.0
    for a_lower, a_higher in zip(lower.tolist(), higher.tolist()):
        for j, wanted in enumerate(a_higher):
            total += abs(max(a_lower[i] * table[i][j] for i in range(len(a_lower))) - wanted)
    return total / len(lower)


@pytest.mark.parametrize('direction', ['fine_to_coarse', 'coarse_to_fine', 'both'])
@pytest.mark.parametrize('conditioning', ['row', 'none'])
def test_equals_the_formula(direction, conditioning):
    coarse, fine, plan = example()
    loss = MODELS.build(
        dict(type='HierarchyMatchingLoss', direction=direction, conditioning=conditioning, loss_weight=0.5)
    )
    expected = 0.5 * by_loops(coarse, fine, plan, direction, conditioning)
    assert loss(coarse, fine, plan).item() == pytest.approx(expected, abs=1e-12)


def test_agreeing_levels_cost_nothing():
    """Two coarse clusters, each split into two fine ones of which one is active."""
    plan = torch.tensor([[0.25, 0.25, 0, 0], [0, 0, 0.25, 0.25]])
    fine = torch.eye(4)
    coarse = torch.eye(2)[[0, 0, 1, 1]]
    assert HierarchyMatchingLoss()(coarse, fine, plan).item() == 0
    assert HierarchyMatchingLoss()(coarse.flip(1), fine, plan).item() == 2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_are_widened(dtype):
    coarse, fine, plan = example(torch.float32)
    with torch.autocast('cpu', dtype=dtype):
        assert torch.equal(HierarchyMatchingLoss()(coarse, fine, plan), HierarchyMatchingLoss()(coarse, fine, plan))
        narrow = HierarchyMatchingLoss()(coarse.to(dtype), fine.to(dtype), plan)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, HierarchyMatchingLoss()(coarse, fine, plan), rtol=0.02, atol=0.02)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="direction must be one of .*got 'up'"):
        HierarchyMatchingLoss(direction='up')
    with pytest.raises(ValueError, match="conditioning must be one of .*got 'column'"):
        HierarchyMatchingLoss(conditioning='column')
