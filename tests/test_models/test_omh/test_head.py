from __future__ import annotations

import copy
import math

import numpy as np
import ot
import pytest
import torch
from torch import Tensor

from omh_mmseg.models.omh import OMHHead
from omh_mmseg.models.omh.level_sizes import expand_levels
from omh_mmseg.registry import MODELS

RANDOM = dict(start='random')
MATCH, CLUSTER = dict(loss_weight=0.3), dict(loss_weight=0.2)


def fixed(begin: int = 0, ramp: int = 0) -> dict:
    return dict(type='FixedWeight', begin=begin, ramp=ramp)


ALL_ON = dict(centres=RANDOM, cluster=CLUSTER, match=MATCH, reach=fixed())


def head_with(**options) -> OMHHead:
    return OMHHead(**(dict(in_channels=6, num_classes=3) | options))


def code_like(seed: int = 0, shape: tuple[int, ...] = (2, 6, 4, 5), dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def total_of(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for name, value in losses.items() if 'loss' in name]).sum()


def norm_of(gradients: list[Tensor | None]) -> float:
    return sum(float(gradient.norm()) for gradient in gradients if gradient is not None)


# ---- the levels


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ((27, 3, 2.0), [27, 54, 108]), ((27, 3, 1.5), [27, 40, 60]), ((11, 4, 1.2), [11, 13, 16, 19]),
        ((5, 1, 2.0), [5]), ((5, 2, 1.0), [5, 5]), ((1, 5, 2.0), [1, 2, 4, 8, 16]), ((1, 3, 1.0), [1, 1, 1]),
    ],
)  # fmt: skip
def test_expansion(arguments, expected):
    assert expand_levels(*arguments) == expected
    head = OMHHead(6, arguments[0], num_levels=arguments[1], expansion=arguments[2])
    assert head.level_sizes == expected == [len(centres) for centres in head.centres]


def test_explicit_level_sizes():
    head = head_with(level_sizes=[3, 4, 9, 9])
    assert head.level_sizes == [3, 4, 9, 9]
    assert [tuple(plan.plan.shape) for plan in head.plans()] == [(3, 4), (4, 9), (9, 9)]


# ---- the formulas


def written_out(
    code: np.ndarray, centres: list[np.ndarray], head: OMHHead, direction: str, conditioning: str, assignment: str
) -> tuple[float, float]:
    """Sum of the cluster losses and sum of the matching losses, as docs/methods/omh.md 2 has them."""

    def unit(vector: np.ndarray) -> np.ndarray:
        return vector / math.sqrt(sum(value * value for value in vector))

    batch, _, height, width = code.shape
    positions = [code[b, :, y, x] for b in range(batch) for y in range(height) for x in range(width)]
    similarity = [[[float(unit(z) @ unit(c)) for c in level] for z in positions] for level in centres]
    activation = []
    for level in similarity:
        weights = [[math.exp(s / head.temperature) for s in row] for row in level]
        activation.append([[weight / sum(row) for weight in row] for row in weights])
    cluster = 0.0
    for s, a in zip(similarity, activation):
        chosen = [max(row) if assignment == 'hard' else sum(map(np.prod, zip(row, q))) for row, q in zip(s, a)]
        cluster -= sum(chosen) / len(positions)
    matching = 0.0
    for level in range(len(centres) - 1):
        coarse, fine = centres[level], centres[level + 1]
        cost = np.array([[1 - float(unit(c) @ unit(f)) for f in fine] for c in coarse])
        uniform = [np.full(len(side), 1 / len(side)) for side in (coarse, fine)]
        plan = ot.sinkhorn(
            *uniform, cost, head.plan.entropy_weight, method='sinkhorn_log', numItermax=20000, stopThr=1e-12
        )  # fmt: skip
        values = []
        for way in ('fine_to_coarse', 'coarse_to_fine') if direction == 'both' else (direction,):
            lower, higher = (level + 1, level) if way == 'fine_to_coarse' else (level, level + 1)
            table = plan.T if way == 'fine_to_coarse' else plan
            mass = 1 / table.shape[0] if conditioning == 'row' else 1.0
            total = 0.0
            for p in range(len(positions)):
                for j in range(table.shape[1]):
                    moved = max(activation[lower][p][i] * table[i, j] / mass for i in range(table.shape[0]))
                    total += abs(moved - activation[higher][p][j])
            values.append(total / len(positions))
        matching += sum(values) / len(values)
    return cluster, matching


@pytest.mark.parametrize('direction', ['fine_to_coarse', 'coarse_to_fine', 'both'])
@pytest.mark.parametrize('conditioning', ['row', 'none'])
@pytest.mark.parametrize('assignment', ['hard', 'soft'])
@pytest.mark.parametrize('joint', [False, True])
def test_losses_equal_the_formulas(joint, assignment, conditioning, direction):
    alpha = 10.0 if assignment == 'soft' else None
    gradient = dict(type='GradientCentres', start='random', alpha=alpha, loss_weight=0.7)
    head = head_with(
        level_sizes=[2, 3, 5], num_classes=2, centres=dict(type='JointCentres') if joint else gradient,
        cluster=dict(alpha=alpha, loss_weight=0.2),
        match=dict(conditioning=conditioning, direction=direction, loss_weight=0.3), reach=fixed(),
        plan=dict(entropy_weight=0.1, tolerance=1e-12, max_iterations=20000),
    ).double()  # fmt: skip
    code = code_like(shape=(2, 6, 2, 2), dtype=torch.float64)
    losses = head.loss(code, 0)
    cluster, matching = written_out(
        code.detach().numpy(), [c.detach().numpy() for c in head.centres], head, direction, conditioning, assignment
    )
    assert losses['loss_omh_cluster'].item() == pytest.approx(0.2 * cluster, abs=1e-9)
    assert losses['loss_omh_match'].item() == pytest.approx(0.3 * matching, abs=1e-9)
    if not joint:
        assert losses['loss_omh_centre'].item() == pytest.approx(0.7 * cluster, abs=1e-9)
    else:
        assert 'loss_omh_centre' not in losses


def test_activation_marginals_enter_the_plan():
    head = head_with(plan=dict(marginal='activation'), level_sizes=[3, 5], **ALL_ON).double()
    code = code_like(dtype=torch.float64)
    head.loss(code, 0)
    shares = [torch.softmax(s / head.temperature, 1).mean((0, 2, 3)) for s in head(code)]
    for side, share in zip((1, 0), shares):
        torch.testing.assert_close(head.plans()[0].plan.sum(side), share.detach(), rtol=1e-4, atol=1e-6)


def test_activation_marginal_of_an_empty_cluster_stays_above_zero():
    head = head_with(plan=dict(marginal='activation'), level_sizes=[3, 5], temperature=0.001, **ALL_ON)
    losses = head.loss(torch.ones(1, 6, 3, 3, requires_grad=True), 0)
    assert all(torch.isfinite(value) for value in losses.values())
    assert head.plan.marginal_1.min() > 0


# ---- what reaches what


def gradients(head: OMHHead, loss: Tensor, code: Tensor) -> tuple[float, float]:
    """Gradient norms on the code and on the centres."""
    parameters = list(head.centres)
    on_code, *on_centres = torch.autograd.grad(loss, [code, *parameters], retain_graph=True, allow_unused=True)
    return norm_of([on_code]), norm_of(on_centres)


def test_gradients_of_centres_that_learn_by_themselves():
    """Centres learn from the centre loss alone, the code from the other two alone."""
    head, code = head_with(**ALL_ON), code_like()
    losses = head.loss(code, 0)
    on_code, on_centres = gradients(head, losses['loss_omh_centre'], code)
    assert on_code == 0 and on_centres > 0
    for name in ('loss_omh_cluster', 'loss_omh_match'):
        on_code, on_centres = gradients(head, losses[name], code)
        assert on_code > 0 and on_centres == 0, name


def test_gradients_of_joint_centres():
    head, code = head_with(**ALL_ON | dict(centres=dict(type='JointCentres'))), code_like()
    losses = head.loss(code, 0)
    assert [name for name in losses if 'loss' in name] == ['loss_omh_cluster', 'loss_omh_match']
    for name in ('loss_omh_cluster', 'loss_omh_match'):
        on_code, on_centres = gradients(head, losses[name], code)
        assert on_code > 0 and on_centres > 0, name


def test_gradient_through_the_solver_reaches_the_centres():
    code = code_like()
    norms = {}
    for mode in ('detach', 'solver'):
        torch.manual_seed(3)
        head = head_with(plan=dict(gradient=mode), **ALL_ON)
        norms[mode] = gradients(head, head.loss(code, 0)['loss_omh_match'], code)
    assert norms['detach'][1] == 0 and norms['solver'][1] > 0
    assert norms['detach'][0] == pytest.approx(norms['solver'][0])


def test_nothing_reaches_the_code_before_the_start():
    head, code = head_with(**ALL_ON | dict(reach=fixed(2))), code_like()
    for step in range(4):
        losses = head.loss(code, step)
        on_code, _ = gradients(head, total_of(losses), code)
        assert (on_code > 0) == (step >= 2)
        assert ('loss_omh_match' in losses) == (step >= 2)


def test_ramp():
    head, code = head_with(plan=dict(warm_start=False), **ALL_ON | dict(reach=fixed(1, 3))), code_like()
    shares, values = [], []
    for step in range(7):
        shares.append(head.reach.weight(step))
        values.append(float(head.loss(code, step).get('loss_omh_match', 0.0)))
    assert shares == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert values == pytest.approx([share * values[-1] for share in shares], rel=1e-5)


def test_losses_are_left_out():
    losses = head_with(match=None, reach=dict(begin=0)).loss(code_like(), 0)
    assert [name for name in losses if 'loss' in name] == ['loss_omh_centre']
    losses = head_with(reach=fixed()).loss(code_like(), 0)
    assert [name for name in losses if 'loss' in name] == ['loss_omh_centre', 'loss_omh_match']


def test_centres_settle():
    """The centre loss alone finds well separated directions."""
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    code = (directions[torch.arange(48) % 3] + 0.05 * torch.randn(48, 6)).t().reshape(1, 6, 6, 8)
    head = head_with(num_levels=1, centres=RANDOM, match=None)
    with torch.no_grad():
        head.centres[0].copy_(directions + 0.4 * torch.randn(3, 6))
    optimiser = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        total_of(head.loss(code, 0)).backward()
        optimiser.step()
    assert head(code)[0].max(1).values.mean() > 0.95


# ---- every option and every edge


@pytest.mark.parametrize('entropy_weight', [0.05, 0.01, 0.005])
@pytest.mark.parametrize(
    'levels',
    [
        dict(num_levels=1), dict(num_levels=5), dict(expansion=1.0), dict(num_classes=1),
        dict(num_classes=1, expansion=1.0), dict(level_sizes=[3, 5, 6, 6]),
    ],
    ids=str,
)  # fmt: skip
def test_edges_are_finite(levels, entropy_weight):
    head, code = head_with(plan=dict(entropy_weight=entropy_weight), **levels, **ALL_ON), code_like()
    losses = head.loss(code, 0)
    total_of(losses).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert torch.isfinite(code.grad).all() and code.grad.norm() > 0
    assert all(torch.isfinite(centres.grad).all() for centres in head.centres)
    assert ('loss_omh_match' in losses) == (len(head.level_sizes) > 1)


@pytest.mark.parametrize('gradient', ['detach', 'solver'])
@pytest.mark.parametrize('marginal', ['uniform', 'activation'])
@pytest.mark.parametrize('centres', [dict(start='random', alpha=10.0), dict(type='JointCentres')])
@pytest.mark.parametrize('entropy_weight', [0.05, 0.005])
def test_options_are_finite(centres, marginal, gradient, entropy_weight):
    head = head_with(
        plan=dict(marginal=marginal, gradient=gradient, entropy_weight=entropy_weight, max_iterations=200),
        centres=centres, cluster=dict(alpha=10.0, loss_weight=0.2), match=dict(direction='both', loss_weight=0.3),
        reach=fixed(),
    )  # fmt: skip
    code = code_like()
    for step in range(2):
        losses = head.loss(code, step)
    total_of(losses).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert torch.isfinite(code.grad).all() and code.grad.norm() > 0
    assert all(torch.isfinite(centres.grad).all() and centres.grad.norm() > 0 for centres in head.centres)


@pytest.mark.parametrize('gradient', ['detach', 'solver'])
@pytest.mark.parametrize('spread', [0.0, 1e-7, 1e-3])
def test_nearly_equal_centres_are_finite(spread, gradient):
    head = head_with(plan=dict(entropy_weight=0.01, gradient=gradient), **ALL_ON)
    common = torch.randn(1, 6)
    with torch.no_grad():
        for centres in head.centres:
            centres.copy_(common + spread * torch.randn_like(centres))
    code = code_like()
    losses = head.loss(code, 0)
    total_of(losses).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert torch.isfinite(code.grad).all()
    assert all(torch.isfinite(centres.grad).all() for centres in head.centres)


@pytest.mark.parametrize('entropy_weight', [0.05, 0.005])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype, entropy_weight):
    head = head_with(plan=dict(entropy_weight=entropy_weight), **ALL_ON)
    plain = copy.deepcopy(head).loss(code_like(), 0)
    code = code_like()
    with torch.autocast('cpu', dtype=dtype):
        losses = head.loss(torch.nn.functional.conv2d(code, torch.eye(6)[:, :, None, None]), 0)
    total_of(losses).backward()
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in losses.values())
    assert torch.isfinite(code.grad).all() and code.grad.norm() > 0
    for name in ('loss_omh_centre', 'loss_omh_cluster', 'loss_omh_match'):
        torch.testing.assert_close(losses[name], plain[name], rtol=0.02, atol=0.005)
    # The plans see the centres alone, which are not half precision.
    for name in ('omh_sparsity_12', 'omh_parents_mean_23', 'omh_iterations_12'):
        torch.testing.assert_close(losses[name], plain[name])


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_broken_centres_name_the_level_pair(value):
    head = head_with(**ALL_ON)
    with torch.no_grad():
        head.centres[2][0, 0] = value
    with pytest.raises(FloatingPointError, match='between levels 2 and 3 is not finite'):
        head.loss(code_like(), 0)


def test_broken_code_shows_in_the_figures_of_level_pairs():
    code = code_like()
    head = head_with(**ALL_ON)
    figures = head.loss(code, 0)
    total = sum(float(figures[f'omh_match_{pair}']) for pair in (12, 23))
    assert total == pytest.approx(float(figures['loss_omh_match'].detach()) / 0.3)
    with torch.no_grad():
        code[0, 0, 0, 0] = math.nan
    broken = head.loss(code, 0)
    names = {'loss_omh_centre', 'loss_omh_cluster', 'loss_omh_match', 'omh_match_12', 'omh_match_23'}
    assert {name for name, value in broken.items() if not torch.isfinite(value)} == names


# ---- state


def steps(head: OMHHead, optimiser: torch.optim.Optimizer, numbers: range) -> list[float]:
    values = []
    for number in numbers:
        optimiser.zero_grad()
        losses = head.loss(code_like(number), number)
        total = total_of(losses)
        total.backward()
        optimiser.step()
        values += [float(value) for value in losses.values()]
    return values


@pytest.mark.parametrize('marginal', ['uniform', 'activation'])
def test_resumed_run_is_bit_equal(marginal):
    options = dict(plan=dict(marginal=marginal), **ALL_ON | dict(reach=fixed(2, 2)))
    straight = head_with(**options)
    optimiser = torch.optim.Adam(straight.parameters(), 0.01)
    steps(straight, optimiser, range(3))
    saved = copy.deepcopy(dict(head=straight.state_dict(), optimiser=optimiser.state_dict()))
    expected = steps(straight, optimiser, range(3, 5))

    torch.manual_seed(99)
    resumed = head_with(**options)
    again = torch.optim.Adam(resumed.parameters(), 0.01)
    resumed.load_state_dict(saved['head'])
    again.load_state_dict(saved['optimiser'])
    assert steps(resumed, again, range(3, 5)) == expected
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_warm_start_is_kept_and_saves_iterations():
    head, code = head_with(plan=dict(entropy_weight=0.1), **ALL_ON), code_like()
    assert not head.plan.row_potential_0.any()
    first, second = (float(head.loss(code, step)['omh_iterations_12']) for step in range(2))
    assert head.state_dict()['plan.row_potential_0'].any() and head.state_dict()['plan.column_potential_1'].any()
    assert second < first
    cold = head_with(plan=dict(entropy_weight=0.1, warm_start=False), **ALL_ON)
    cold.load_state_dict(head.state_dict())
    assert float(cold.loss(code, 0)['omh_iterations_12']) == first


def test_evaluation_leaves_no_trace():
    head = head_with(plan=dict(marginal='activation'), **ALL_ON)
    head.loss(code_like(), 0)
    head.eval()
    before = copy.deepcopy(head.state_dict())
    head.hierarchy()
    head(code_like(1))
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())


# ---- figures, prediction, hierarchy


def test_figures_equal_independent_ones():
    head = head_with(num_classes=4, num_levels=2, plan=dict(entropy_weight=0.03), **ALL_ON).double()
    code = code_like(dtype=torch.float64)
    losses = head.loss(code, 0)
    rows, columns = (c.detach() / c.detach().norm(dim=1, keepdim=True) for c in head.centres)
    uniform = [torch.full((size,), 1 / size, dtype=torch.float64) for size in (4, 8)]
    plan = ot.sinkhorn(*uniform, 1 - rows @ columns.t(), 0.03, method='sinkhorn_log', stopThr=1e-9, numItermax=9999)
    parents = []
    for column in (plan / plan.sum(0)).t().tolist():
        parents.append(math.exp(-sum(share * math.log(share) for share in column if share > 0)))
    wins = code.detach().movedim(1, -1).reshape(-1, 6) @ columns.t()
    expected = dict(
        omh_used_2=len(wins.argmax(1).unique()) / 8,
        omh_sparsity_12=sum(value > 0.01 / 4 for row in plan.tolist() for value in row) / 32,
        omh_parents_mean_12=sum(parents) / 8,
        omh_parents_max_12=max(parents),
    )
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, abs=1e-4), name
    assert 0 <= losses['omh_violation_12'].item() < 1e-4
    assert losses['omh_iterations_12'].item() > 1
    assert not any(losses[name].requires_grad for name in losses if name.startswith('omh_'))


def test_unused_clusters_are_seen():
    losses = head_with(num_classes=4, num_levels=1, match=None).loss(torch.ones(2, 6, 3, 3), 0)
    assert losses['omh_used_1'].item() == 0.25


def test_hierarchy_is_that_of_the_centres():
    head = head_with(level_sizes=[2, 4], num_classes=2, plan=dict(entropy_weight=0.01))
    with torch.no_grad():
        head.centres[0].copy_(torch.eye(6)[:2])
        head.centres[1].copy_(torch.eye(6)[[0, 1, 1, 0]] + 0.1)
    hierarchy = head.hierarchy()
    assert hierarchy.level_sizes == [2, 4]
    assert hierarchy.parents[0].tolist() == [0, 1, 1, 0]
    assert hierarchy.parent_mass[0].min() > 0.99


# ---- wrong arguments


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(centres=dict(type='Frozen')), "omh_head.centres.type is 'Frozen', which is not registered"),
        (dict(plan=dict(marginal='data')), "marginal must be one of .*got 'data'"),
        (dict(plan=dict(gradient='none')), "gradient must be one of .*got 'none'"),
        (dict(match=dict(direction='up')), "direction must be one of .*got 'up'"),
        (dict(match=dict(target='both')), "target must be one of .*got 'both'"),
        (dict(match=dict(conditioning='column')), "conditioning must be one of .*got 'column'"),
        (dict(centres=dict(start='k-means')), "start must be one of .*got 'k-means'"),
        (dict(plan=dict(entropy_weight=1e-9)), r'PlanSolver: entropy_weight must be .* \[0.001, 1000\]; got 1e-09'),
        (dict(cluster=dict(loss_weight=0)), r'cluster.loss_weight must be finite and above 0; got 0. Leave .*=None'),
        (dict(expansion=1.01), 'expansion=1.01 does not grow a level of 3 clusters'),
        (dict(expansion=0.9), r'OMHHead: expansion must be a number in \[1, 64\] or None; got 0.9'),
        (dict(level_sizes=[]), r'level_sizes must start with num_classes=3 .*got \[\]'),
        (dict(level_sizes=[4, 8]), r'level_sizes must start with num_classes=3 .*got \[4, 8\]'),
        (dict(level_sizes=[3, 6, 5]), r'never shrink \(coarsest first\); got \[3, 6, 5\]'),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='OMHHead') | dict(in_channels=6, num_classes=3) | wrong)
