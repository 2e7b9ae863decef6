"""The parts of OMH's head beyond the formulas: where centres start, how they follow, shares of the host's gradient."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omh_mmseg.models.omh import OMHHead, centre_rules, k_means_start
from omh_mmseg.models.omh.centre_rules import follow_positions
from omh_mmseg.models.omh.gradient_shares import GradientShares, code_gradient
from omh_mmseg.models.omh.k_means_start import POOL_SIZE, KMeansStart

NUM_GROUPS = 4


def directions() -> Tensor:
    """Four orthogonal directions of eight dimensions."""
    return torch.eye(8)[:NUM_GROUPS]


def grouped_code(seed: int, groups: int = NUM_GROUPS, shape: tuple[int, int] = (6, 6)) -> Tensor:
    """(2, 8, h, w): positions near the directions, of any length."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.arange(2 * shape[0] * shape[1]) % groups
    rows = directions()[chosen] + 0.02 * torch.randn(len(chosen), 8, generator=generator)
    rows = rows * (0.5 + torch.rand(len(rows), 1, generator=generator))
    return rows.view(2, *shape, 8).permute(0, 3, 1, 2).contiguous().requires_grad_()


def head_with(**options) -> OMHHead:
    return OMHHead(**(dict(in_channels=8, num_classes=NUM_GROUPS, num_levels=2) | options))


RANDOM = dict(start='random')


def fixed(begin: int = 0, ramp: int = 0) -> dict:
    return dict(type='FixedWeight', begin=begin, ramp=ramp)


def share(match: float = 0.5, cluster: float | None = None, begin: int = 0, ramp: int = 0) -> dict:
    losses = dict(match=dict(loss_weight=match), cluster=None if cluster is None else dict(loss_weight=cluster))
    return dict(reach=dict(type='HostShare', begin=begin, ramp=ramp), centres=RANDOM, **losses)


def nearest(head: OMHHead) -> Tensor:
    """Cosine of each direction with the nearest centre of level 1."""
    return (directions() @ F.normalize(head.centres[0].detach(), dim=1).t()).max(1).values


# ---- the start of the centres


@pytest.mark.parametrize('start', [0, 2, 11])
def test_kmeans_finds_the_groups_at_the_start_and_not_before(start):
    head = head_with(reach=fixed(start))
    drawn = [centres.detach().clone() for centres in head.centres]
    for step in range(start):
        head.loss(grouped_code(step), step)
        assert all(torch.equal(now, before) for now, before in zip(head.centres, drawn)), step
    head.loss(grouped_code(start), start)
    assert nearest(head).min() > 0.99
    assert [len(centres) for centres in head.centres] == [4, 8]
    started = copy.deepcopy(head.state_dict())
    head.loss(grouped_code(start + 1), start + 1)
    assert all(torch.equal(value, started[name]) for name, value in head.named_parameters())


def test_centres_keep_their_lengths():
    head = head_with(reach=fixed())
    before = [centres.norm(dim=1).mean() for centres in head.centres]
    head.loss(grouped_code(0), 0)
    for centres, length in zip(head.centres, before):
        torch.testing.assert_close(centres.norm(dim=1), length.expand(len(centres)))


def test_the_pool_reaches_back_over_several_batches():
    """Each batch shows one group; the last of them alone would leave level 1 with one."""
    head = head_with(reach=fixed(NUM_GROUPS - 1))
    for step in range(NUM_GROUPS):
        code = directions()[step].view(1, 8, 1, 1).expand(2, 8, 6, 6) + 0.02 * grouped_code(step).detach()
        head.loss(code.requires_grad_(), step)
    assert nearest(head).min() > 0.99


@pytest.mark.parametrize('centres', [RANDOM, dict(), dict(type='MomentumCentres')])
def test_the_host_draws_the_same_numbers_as_without(centres):
    state = torch.get_rng_state()
    head = head_with(reach=fixed(1), centres=centres)
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(1)
    other = head_with(reach=fixed(1), centres=centres)
    assert not torch.equal(head.centres[0], other.centres[0])
    for step in range(3):
        state = torch.get_rng_state()
        head.loss(grouped_code(step).detach().requires_grad_(), step)
        assert torch.equal(torch.get_rng_state(), state), step


def test_the_pool_sees_every_column():
    start = KMeansStart(2, 7)
    size = start.pool.shape[1]
    columns = torch.arange(8).repeat(size).float()  # eight columns, and a stride of eight
    for step in range(7):
        start.step(torch.stack([columns, columns], dim=1), [], step)
    assert set(start.pool[:7, :, 0].flatten().tolist()) == set(range(7))
    assert [len(set(row.tolist())) for row in start.pool[:7, :, 0]] == 7 * [1]


def test_the_pool_holds_no_more_than_it_says():
    for iteration in (0, 2, 100):
        assert KMeansStart(8, iteration).pool.flatten(0, 1).shape == (POOL_SIZE, 8)


@pytest.mark.parametrize('iteration', [0, 2, 6, 7, 9])
def test_the_pool_is_full_when_it_is_used(iteration):
    start = KMeansStart(2, iteration)
    for step in range(iteration):
        start.step(torch.full((5, 2), step + 1.0), [], step)
    start.step(torch.full((5, 2), iteration + 1.0), [], iteration)
    assert set(start.pool.flatten().tolist()) == set(range(max(1, iteration - 6), iteration + 2))


def test_broken_codes_are_no_start():
    head = head_with(reach=fixed(1))
    head.loss(torch.full((2, 8, 6, 6), torch.nan), 0)
    with pytest.raises(FloatingPointError, match='The code is not finite in the steps before 1'):
        head.loss(grouped_code(0), 1)


def test_random_start_keeps_no_pool():
    assert not [name for name in head_with(centres=RANDOM).state_dict() if 'pool' in name]


def test_evaluation_collects_nothing():
    head = head_with(reach=fixed()).eval()
    before = [centres.detach().clone() for centres in head.centres]
    head.loss(grouped_code(0), 0)
    assert all(torch.equal(now, drawn) for now, drawn in zip(head.centres, before))


def test_resumed_before_the_start_is_bit_equal():
    def run(head: OMHHead, steps: range) -> list[Tensor]:
        for step in steps:
            head.loss(grouped_code(step), step)
        return [centres.detach().clone() for centres in head.centres]

    straight = head_with(reach=fixed(4))
    run(straight, range(3))
    resumed = head_with(reach=fixed(4))
    resumed.load_state_dict(straight.state_dict())
    for one, other in zip(run(straight, range(3, 6)), run(resumed, range(3, 6))):
        assert torch.equal(one, other)


def test_processes_share_pools_and_centres(monkeypatch):
    """Two processes, of which this is the one with number 1 and the other one's pool holds the other groups."""
    others = grouped_code(9, 2).detach().permute(0, 2, 3, 1).flatten(0, 2)
    sent = []
    monkeypatch.setattr(k_means_start.dist, 'all_gather', lambda pool: [F.normalize(others, dim=1), pool])
    monkeypatch.setattr(k_means_start.dist, 'broadcast', sent.append)
    head = head_with(reach=fixed())
    code = directions()[2:].repeat(36, 1).view(2, 6, 6, 8).permute(0, 3, 1, 2)
    head.loss(code + 0.02 * grouped_code(0), 0)
    assert nearest(head).min() > 0.99
    assert [tensor.data_ptr() for tensor in sent] == [centres.data_ptr() for centres in head.centres]


@pytest.mark.parametrize('processes', [2, 3])
def test_the_pool_holds_as_much_of_each_process_and_no_more_together(monkeypatch, processes):
    monkeypatch.setattr(k_means_start.dist, 'get_world_size', lambda: processes)
    monkeypatch.setattr(k_means_start.dist, 'all_gather', lambda part: [part + other for other in range(processes)])
    start = KMeansStart(2, 7)
    for step in range(7):
        start.step(torch.zeros(5, 2), [], step)
    values, counts = start.pool[:7].unique(return_counts=True)
    assert values.tolist() == list(range(processes)) and counts.max() - counts.min() <= 2 * 7 * processes


# ---- centres that follow their positions


def test_centres_follow_the_positions_that_they_win():
    centres = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, -1.0]])
    before = centres.clone()
    positions = F.normalize(torch.tensor([[1.0, 0.5], [1.0, -0.1], [0.1, 1.0]]), dim=1)
    similarity = positions @ F.normalize(centres, dim=1).t()
    follow_positions([centres], positions, [similarity.argmax(1)], 0.6)
    wins = [positions[:2].mean(0), positions[2]]
    for number, mean in enumerate(wins):
        expected = F.normalize(0.6 * F.normalize(before[number], dim=0) + 0.4 * mean, dim=0) * before[number].norm()
        torch.testing.assert_close(centres[number], expected)
    torch.testing.assert_close(centres[2], before[2])


def test_processes_follow_the_positions_of_all(monkeypatch):
    positions = F.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    start = [torch.randn(size, 8, generator=torch.Generator().manual_seed(size)) for size in (3, 5)]

    def winners(part: Tensor) -> list[Tensor]:
        return [(part @ F.normalize(level, dim=1).t()).argmax(1) for level in start]

    together = [level.clone() for level in start]
    follow_positions(together, positions, winners(positions), 0.5)
    sent = []
    monkeypatch.setattr(centre_rules.dist, 'all_reduce', lambda sums: sent.append(sums.clone()))
    for part in positions.split([7, 33]):
        follow_positions([level.clone() for level in start], part, winners(part), 0.5)
    monkeypatch.setattr(centre_rules.dist, 'all_reduce', lambda sums: sums.copy_(sent[0] + sent[1]))
    apart = [level.clone() for level in start]
    follow_positions(apart, positions[:7], winners(positions[:7]), 0.5)
    for one, other in zip(apart, together):
        torch.testing.assert_close(one, other)


def test_centres_follow_in_training_alone_and_take_no_gradient():
    head = head_with(centres=dict(type='MomentumCentres', start='random'), reach=fixed())
    assert not any(centres.requires_grad for centres in head.centres)
    before = [centres.clone() for centres in head.centres]
    code = grouped_code(0)
    winners = [similarity.argmax(1).flatten() for similarity in head(code.detach())]
    losses = head.eval().loss(code, 0)
    assert all(torch.equal(now, then) for now, then in zip(head.centres, before))
    assert 'loss_omh_centre' not in losses and losses['loss_omh_match'].requires_grad
    losses = head.train().loss(code, 0)
    positions = F.normalize(code.detach().permute(0, 2, 3, 1).flatten(0, 2), dim=1)
    follow_positions(before, positions, winners, 0.97)
    for now, expected in zip(head.centres, before):
        torch.testing.assert_close(now, expected)
    # The step's own loss is against the centres as they were.
    losses['loss_omh_match'].backward()
    assert torch.isfinite(code.grad).all() and code.grad.any()


def test_followed_centres_settle_on_the_groups():
    head = head_with(centres=dict(type='MomentumCentres', momentum=0.8), reach=fixed())
    for step in range(20):
        head.loss(grouped_code(step), step)
    assert nearest(head).min() > 0.999


# ---- weights relative to the host's gradient


def added_gradients(head: OMHHead, code: Tensor, host: Tensor, step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """The host's gradient on the code, and what each of OMH's losses adds to it."""
    (own,) = torch.autograd.grad(host, code, retain_graph=True)
    losses = head.loss(code, step, GradientShares(code))
    added = {}
    for name in ('loss_omh_cluster', 'loss_omh_match'):
        if name in losses:
            (both,) = torch.autograd.grad(host + losses[name], code, retain_graph=True)
            added[name] = both - own
    return own, added


@pytest.mark.parametrize('scale', [1.0, 1000.0])
def test_losses_have_the_share_of_the_hosts_gradient(scale):
    head = head_with(**share(0.3, 0.2))
    plain_head = head_with(**share(0.3, 0.2) | dict(reach=fixed()))
    plain_head.load_state_dict(head.state_dict())
    code = grouped_code(0)
    host = scale * (code**2).mean()
    own, added = added_gradients(head, code, host)
    plain = plain_head.loss(code, 0)
    for name, part in (('loss_omh_match', 0.3), ('loss_omh_cluster', 0.2)):
        (direction,) = torch.autograd.grad(plain[name], code, retain_graph=True)
        torch.testing.assert_close(added[name], direction * part * own.norm() / direction.norm(), rtol=1e-4, atol=1e-6)


def test_all_losses_are_added_in_one_backward_pass():
    head = head_with(**share(0.3, 0.2))
    code = grouped_code(0)
    host = (code**2).mean()
    own, added = added_gradients(head, code, host)
    losses = head.loss(code, 0, GradientShares(code))
    for _ in range(2):
        code.grad = None
        (host + losses['loss_omh_match'] + losses['loss_omh_cluster']).backward(retain_graph=True)
        torch.testing.assert_close(code.grad, own + sum(added.values()), rtol=1e-4, atol=1e-6)


def test_other_rows_of_the_hosts_code_keep_its_gradient():
    """STEGO's loss sees the neighbours as well; the share is of the whole."""
    head = head_with(**share())
    whole = grouped_code(0)
    host = (whole**2).mean()
    (own,) = torch.autograd.grad(host, whole, retain_graph=True)
    losses = head.loss(whole[:1], 0, GradientShares(whole))
    (both,) = torch.autograd.grad(host + losses['loss_omh_match'], whole)
    assert torch.equal(both[1:], own[1:])
    torch.testing.assert_close((both - own)[:1].norm(), 0.5 * own.norm())


def test_shares_do_not_depend_on_the_scale_of_all_losses():
    head = head_with(**share())
    start, scaled = copy.deepcopy(head.state_dict()), []
    for scale in (1.0, 2.0**16):
        code = grouped_code(0)
        losses = head.loss(code, 0, GradientShares(code))
        (scale * ((code**2).mean() + losses['loss_omh_match'])).backward()
        scaled.append(code.grad / scale)
        head.load_state_dict(start)
    torch.testing.assert_close(scaled[0], scaled[1], rtol=1e-4, atol=1e-7)


def test_shares_leave_nothing_behind():
    head = head_with(**share())
    leaf = grouped_code(0)
    code = leaf * 1
    kept = weakref.ref(code)
    losses = head.loss(code, 0, GradientShares(code))
    ((code**2).mean() + losses['loss_omh_match']).backward()
    del code, losses
    assert kept() is None


def test_the_share_grows_with_the_ramp():
    head = head_with(**share(0.4, begin=1, ramp=1))
    shares = []
    for step in range(4):
        assert head.needs_shares(step) == (step >= 1)
        code = grouped_code(step)
        own, added = added_gradients(head, code, (code**2).sum(), step)
        shares.append(float(added['loss_omh_match'].norm() / own.norm()) if added else 0.0)
    assert shares == pytest.approx([0.0, 0.2, 0.4, 0.4], rel=1e-4)


def test_shares_are_asked_for():
    head = head_with(**share(begin=1))
    head.loss(grouped_code(0), 0)
    with pytest.raises(ValueError, match="scales gradients where the host's code ends: give shares, or set"):
        head.loss(grouped_code(1), 1)


def test_fixed_weights_do_not_heed_shares():
    head = head_with(**share() | dict(reach=fixed()))
    code = grouped_code(0)
    _, added = added_gradients(head, code, (code**2).sum())
    (expected,) = torch.autograd.grad(head.loss(code, 0)['loss_omh_match'], code)
    torch.testing.assert_close(added['loss_omh_match'], expected, rtol=1e-3, atol=1e-6)


def test_nothing_is_asked_for_what_does_not_reach_the_features():
    assert not head_with(match=None, reach=dict(begin=0)).needs_shares(0)


def test_a_loss_without_gradient_adds_nothing():
    code = grouped_code(0)
    shares = GradientShares(code)
    ((code**2).sum() + 0 * shares.branch(1.0, len(code)).sum()).backward()
    assert torch.equal(code.grad, 2 * code)
    for other in (torch.tensor(3.0), 2 * torch.ones((), requires_grad=True)):
        assert torch.equal(code_gradient(other, code), torch.zeros_like(code))


def test_a_code_without_gradient_is_left_alone():
    head = head_with(**share())
    code = grouped_code(0).detach()
    assert not head.loss(code, 0, GradientShares(code))['loss_omh_match'].requires_grad


def test_half_precision_gradients_do_not_vanish():
    code = torch.ones(1, 4, 64, 64, dtype=torch.float16, requires_grad=True)
    loss = (1e-8 * code.float()).sum()
    assert float(code_gradient(loss, code).norm()) == pytest.approx(1e-8 * code.numel() ** 0.5, rel=0.01)
