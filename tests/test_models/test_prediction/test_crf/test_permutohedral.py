from __future__ import annotations

import numpy as np
import pytest
import torch

from omh_mmseg.models.prediction.crf.permutohedral import PermutohedralLattice


@pytest.mark.parametrize(('dimensions', 'spread'), [(1, 1.5), (2, 1.5), (3, 1.5), (5, 0.7)])
def test_it_is_a_gaussian_filter(dimensions, spread):
    """Up to one factor and the error of the approximation, as with every pair written out."""
    torch.manual_seed(dimensions)
    features = spread * torch.randn(dimensions, 1200)
    values = torch.rand(1200, 3) + (features[0] > 0).float()[:, None]
    filtered = PermutohedralLattice(features)(values)
    exact = torch.exp(-torch.cdist(features.t(), features.t()) ** 2 / 2) @ values
    for ours, theirs in zip(filtered.t(), exact.t()):
        assert np.corrcoef(ours.numpy(), theirs.numpy())[0, 1] > 0.99
    scale = filtered.sum() / exact.sum()
    assert ((filtered / scale - exact).abs() / exact).median() < 0.2


def test_it_is_linear_and_keeps_signs():
    torch.manual_seed(0)
    lattice = PermutohedralLattice(torch.randn(5, 300))
    one, other = torch.rand(300, 2), torch.rand(300, 2)
    torch.testing.assert_close(lattice(2 * one + other), 2 * lattice(one) + lattice(other))
    identity = lattice(torch.eye(300))
    assert (identity >= 0).all() and (identity.diagonal() > 0).all()


def test_positions_far_apart_do_not_meet():
    features = torch.cat([torch.zeros(3, 4), torch.full((3, 4), 50.0)], dim=1)
    filtered = PermutohedralLattice(features)(torch.eye(8))
    assert (filtered[:4, 4:] == 0).all() and (filtered[:4, :4] > 0).all()


def test_normalisation_is_symmetric():
    torch.manual_seed(0)
    lattice = PermutohedralLattice(torch.randn(3, 60))
    kernel = lattice(torch.eye(60))
    norm = kernel.sum(1).rsqrt()
    expected = 3 * norm[:, None] * kernel * norm
    torch.testing.assert_close(lattice.normalised(3.0)(torch.eye(60)), expected)
    torch.testing.assert_close(lattice(torch.eye(60)), kernel)


def test_a_single_position():
    filtered = PermutohedralLattice(torch.tensor([[3.0], [-7.0]]))(torch.tensor([[2.0, 5.0]]))
    assert (filtered > 0).all() and filtered[0, 1] / filtered[0, 0] == pytest.approx(2.5)


def test_no_positions():
    with pytest.raises(ValueError, match='no positions'):
        PermutohedralLattice(torch.zeros(2, 0))
