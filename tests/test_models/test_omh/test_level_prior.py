"""The prior that a level gives the next finer one: where positions go whose centres learn."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omh_mmseg.models.losses.cluster_loss import ClusterLoss, cluster_loss
from omh_mmseg.models.omh import OMHHead
from omh_mmseg.models.omh.centre_rules import follow_positions
from omh_mmseg.models.omh.level_prior import PRIOR_FLOOR, level_priors

TAU = 0.1


def simplex(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, columns, generator=generator, dtype=torch.float64).softmax(1)


@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), scale=st.floats(0.01, 10))
@settings(max_examples=30, deadline=None)
def test_priors_are_log_probabilities(seed, sizes, scale):
    activations = [simplex(5, size, seed + level) for level, size in enumerate(sizes)]
    plans = [simplex(1, a * b, seed).view(a, b) for a, b in zip(sizes, sizes[1:])]
    priors = level_priors(activations, plans, scale)
    assert [prior.shape for prior in priors] == [own.shape for own in activations]
    assert not priors[0].any()
    for level, prior in enumerate(priors[1:]):
        probabilities = (prior / scale).exp()
        torch.testing.assert_close(probabilities.sum(1), torch.ones(5, dtype=torch.float64))
        for position, cluster in ((0, 0), (4, sizes[level + 1] - 1)):
            conditional = plans[level][:, cluster] / plans[level].sum(1)
            expected = sum(float(a) * float(c) for a, c in zip(activations[level][position], conditional))
            assert float(probabilities[position, cluster]) == pytest.approx(expected)


def test_impossible_clusters_stay_finite():
    (_, prior) = level_priors([torch.eye(2), torch.eye(2)], [torch.eye(2) / 2], TAU)
    low = TAU * math.log(PRIOR_FLOOR)
    torch.testing.assert_close(prior, torch.tensor([[0.0, low], [low, 0.0]]))


def test_priors_take_no_gradient():
    activations = [simplex(3, 2, 0).requires_grad_(), simplex(3, 2, 1)]
    assert not level_priors(activations, [(torch.eye(2) / 2).double().requires_grad_()], TAU)[1].requires_grad


def test_hard_clusters_are_chosen_with_the_prior_and_pulled_by_the_cosine():
    similarity = torch.tensor([[0.9, 0.8], [0.3, 0.5]], requires_grad=True)
    prior = torch.tensor([[0.0, 0.2], [0.1, 0.0]])
    loss = ClusterLoss()(similarity, prior)
    assert float(loss.detach()) == pytest.approx(-(0.8 + 0.5) / 2)
    loss.backward()
    torch.testing.assert_close(similarity.grad, torch.tensor([[0.0, -0.5], [0.0, -0.5]]))


@pytest.mark.parametrize('alpha', [None, 3.0])
def test_a_constant_prior_changes_nothing(alpha):
    similarity = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    expected = cluster_loss(similarity, alpha)
    torch.testing.assert_close(cluster_loss(similarity, alpha, torch.full((4, 3), 0.7)), expected)


def test_soft_clusters_with_a_prior():
    similarity, prior = simplex(4, 3, 0).requires_grad_(), simplex(4, 3, 1)
    weights = (3.0 * (similarity + prior)).exp()
    expected = -(weights / weights.sum(1, keepdim=True) * similarity).sum(1).mean()
    torch.testing.assert_close(cluster_loss(similarity, 3.0, prior), expected)
    assert torch.autograd.gradcheck(lambda cosines: cluster_loss(cosines, 3.0, prior), similarity)


# ---- in the head

COARSE = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
FINE = torch.tensor([[1.0, 0.1], [0.75, 0.66], [0.55, 0.83], [0.1, 1.0]])
"""Clusters 0 and 1 belong to coarse cluster 0, clusters 2 and 3 to coarse cluster 1."""


def fixed(begin: int = 0) -> dict:
    return dict(type='FixedWeight', begin=begin)


def head_with(**options) -> OMHHead:
    given = dict(in_channels=2, num_classes=2, num_levels=2, temperature=TAU, plan=dict(entropy_weight=0.02))
    head = OMHHead(**(given | dict(centres=dict(start='random'), reach=fixed()) | options))
    for own, centres in zip(head.centres, (COARSE, FINE)):
        own.data.copy_(centres)
    return head


def code_at(*angles: float) -> Tensor:
    """(1, 2, 1, positions) of length 2."""
    turned = torch.tensor(angles).deg2rad()
    return 2 * torch.stack([turned.cos(), turned.sin()])[None, :, None]


def test_positions_stay_below_their_coarse_cluster():
    """At 48 degrees, beyond the bisector of the coarse centres, the nearest fine one is of the other coarse cluster."""
    code, angle = code_at(48.0), math.radians(48.0)
    cosines = F.normalize(FINE, dim=1) @ torch.tensor([math.cos(angle), math.sin(angle)])
    assert cosines.argmax() == 1 and (COARSE @ code.flatten()).argmax() == 1
    alone, below = head_with(), head_with(centres=dict(start='random', prior=1.0))
    top = math.sin(angle)
    assert float(alone.loss(code, 0)['loss_omh_centre'].detach()) == pytest.approx(-top - float(cosines[1]), abs=1e-6)
    assert float(below.loss(code, 0)['loss_omh_centre'].detach()) == pytest.approx(-top - float(cosines[2]), abs=1e-6)


@pytest.mark.parametrize('kind', ['GradientCentres', 'JointCentres', 'soft'])
def test_the_prior_of_the_losses_is_that_of_the_present_plans(kind):
    """Whatever the rule, positions choose by cosine and by what the coarser activations let expect."""
    code = code_at(10.0, 30.0, 48.0, 60.0, 85.0)
    alpha = 1 / TAU if kind == 'soft' else None
    centres = dict(type='GradientCentres', alpha=alpha) if kind == 'soft' else dict(type=kind)
    head = head_with(
        plan=dict(entropy_weight=0.02, tolerance=1e-12, max_iterations=99999), match=None,
        cluster=dict(alpha=alpha, loss_weight=0.3), centres=dict(centres, start='random', prior=0.5),
    )  # fmt: skip
    positions = F.normalize(code[0, :, 0].t(), dim=1)
    cosines = [positions @ F.normalize(centres, dim=1).t() for centres in (COARSE, FINE)]
    plan = head.plans()[0].plan
    prior = 0.5 * TAU * ((cosines[0] / TAU).softmax(1) @ (plan / plan.sum(1, keepdim=True))).log()
    expected = cluster_loss(cosines[0], alpha) + cluster_loss(cosines[1], alpha, prior)
    assert abs(float(cluster_loss(cosines[1], alpha) - cluster_loss(cosines[1], alpha, prior))) > 5e-4
    losses = head.loss(code, 0)
    torch.testing.assert_close(losses['loss_omh_cluster'].detach(), 0.3 * expected)
    if kind != 'JointCentres':
        torch.testing.assert_close(losses['loss_omh_centre'].detach(), expected)


@pytest.mark.parametrize('weight', [0.0, 1.0])
def test_momentum_centres_follow_what_they_win_so(weight):
    code = code_at(5.0, 48.0, 47.0, 80.0)
    head = head_with(centres=dict(type='MomentumCentres', start='random', prior=weight, momentum=0.5))
    head.loss(code, 0)
    moved = [level.clone() for level in (COARSE, FINE)]
    positions = F.normalize(code[0, :, 0].t(), dim=1)
    chosen = [[0, 1, 1, 1], [0, 2, 2, 3] if weight else [0, 1, 1, 3]]
    follow_positions(moved, positions, list(map(torch.tensor, chosen)), 0.5)
    for now, expected in zip(head.centres, moved):
        torch.testing.assert_close(now.detach(), expected)


def test_levels_choose_by_themselves_before_the_start():
    head, alone = head_with(centres=dict(start='random', prior=1.0), reach=fixed(2)), head_with(reach=fixed(2))
    for step in range(3):
        own, other = (float(model.loss(code_at(48.0), step)['loss_omh_centre'].detach()) for model in (head, alone))
        assert own == other if step < 2 else own > other + 1e-3


def test_one_level_has_no_prior():
    head = OMHHead(in_channels=2, num_classes=2, num_levels=1, reach=fixed(), centres=dict(prior=1.0))
    assert torch.isfinite(head.loss(code_at(10.0, 80.0), 0)['loss_omh_centre'])
