from __future__ import annotations

import math

import pytest
import torch

from omh_mmseg.models.losses import ClusterLoss
from omh_mmseg.registry import MODELS


@pytest.mark.parametrize('alpha', [None, 2.0, 10.0])
@pytest.mark.parametrize('shape', [(7, 3), (2, 3, 4, 5)])
def test_equals_the_formula(alpha, shape):
    similarity = torch.rand(shape, dtype=torch.float64) * 2 - 1
    rows = similarity.movedim(1, -1).reshape(-1, 3).tolist()
    total = 0.0
    for row in rows:
        if alpha is None:
            total -= max(row)
        else:
            weights = [math.exp(alpha * value) for value in row]
            total -= sum(weight * value for weight, value in zip(weights, row)) / sum(weights)
    assert ClusterLoss(alpha)(similarity).item() == pytest.approx(total / len(rows), abs=1e-12)


@pytest.mark.parametrize('alpha', [None, 5.0])
def test_gradient(alpha):
    similarity = torch.rand(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ClusterLoss(alpha, loss_weight=0.7), (similarity,))


def test_half_precision_is_widened():
    assert ClusterLoss()(torch.rand(5, 3).half()).dtype == torch.float32
    assert ClusterLoss()(torch.rand(5, 3).double()).dtype == torch.float64


def test_weight_and_wrong_arguments():
    similarity = torch.rand(5, 3)
    doubled = MODELS.build(dict(type='ClusterLoss', loss_weight=2.0))(similarity)
    torch.testing.assert_close(doubled, 2 * ClusterLoss()(similarity))
    with pytest.raises(ValueError, match=r'alpha must be a number in \(0, inf\) or None; got 0'):
        ClusterLoss(0)
