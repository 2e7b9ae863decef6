"""Every option of every part changes something that can be seen, or is refused by name."""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import pytest
import torch
from mmengine.logging import MMLogger
from torch import Tensor

from omh_mmseg.models.losses import ClusterLoss, HierarchyMatchingLoss
from omh_mmseg.models.omh import (
    FixedWeight,
    GradientCentres,
    HostShare,
    JointCentres,
    MomentumCentres,
    OMHHead,
    PlanSolver,
)
from omh_mmseg.models.omh.gradient_shares import GradientShares
from omh_mmseg.models.omh.parts import MOVED

CENTRES = {rule.__name__: dict(type=rule.__name__) for rule in (GradientCentres, MomentumCentres, JointCentres)}
CLUSTER = dict(cluster=dict(loss_weight=0.2))
BASE: dict[str, Any] = dict(reach=dict(begin=2))
FILLED_IN = {'in_channels', 'num_classes', 'level_sizes', 'begin', 'unknown'}

# Part -> option -> (what is set beside it, another value).
CHANGES: dict[type, dict[str, tuple[dict[str, Any], Any]]] = {
    OMHHead: {
        'num_levels': ({}, 2), 'expansion': ({}, 1.5), 'level_sizes': ({}, [3, 4]), 'temperature': ({}, 0.3),
        'plan': ({}, dict(entropy_weight=0.2)), 'centres': ({}, dict(type='MomentumCentres')), 'match': ({}, None),
        'cluster': ({}, dict(loss_weight=0.2)), 'reach': ({}, dict(type='FixedWeight', begin=2)),
    },
    PlanSolver: {
        'entropy_weight': ({}, 0.2), 'marginal': ({}, 'activation'), 'gradient': ({}, 'solver'),
        'solver': ({}, 'sinkhorn'),
        'tolerance': ({}, 1e-2), 'max_iterations': ({}, 2), 'warm_start': ({}, False),
    },
    GradientCentres: {
        'start': ({}, 'random'), 'prior': ({}, 1.0), 'alpha': ({}, 5.0), 'loss_weight': ({}, 0.5),
    },
    MomentumCentres: {'start': ({}, 'random'), 'prior': ({}, 1.0), 'momentum': ({}, 0.5)},
    JointCentres: {'start': ({}, 'kmeans'), 'prior': (CLUSTER, 1.0)},
    HierarchyMatchingLoss: {
        'direction': ({}, 'both'), 'conditioning': ({}, 'none'), 'target': ({}, 'lower'), 'loss_weight': ({}, 0.7),
    },
    ClusterLoss: {'alpha': (CLUSTER, 5.0), 'loss_weight': (CLUSTER, 0.7)},
    HostShare: {'begin': ({}, 1), 'ramp': ({}, 1)},
    FixedWeight: {'begin': ({}, 1), 'ramp': ({}, 1)},
}  # fmt: skip
NAMES = {
    PlanSolver: 'plan', HierarchyMatchingLoss: 'match', ClusterLoss: 'cluster', HostShare: 'reach',
    FixedWeight: 'reach', GradientCentres: 'centres', MomentumCentres: 'centres', JointCentres: 'centres',
}  # fmt: skip


def observed(**options: Any) -> list[Tensor]:
    """Losses, gradients, figures and state of four steps."""
    torch.manual_seed(0)
    head = OMHHead(in_channels=6, num_classes=3, **copy.deepcopy(BASE | options))
    seen = []
    for step in range(4):
        code = torch.randn(2, 6, 6, 6, generator=torch.Generator().manual_seed(step)).requires_grad_()
        host = (code**2).sum()
        losses = head.loss(code, step, GradientShares(code) if head.needs_shares(step) else None)
        total = host + sum(value for name, value in losses.items() if name.startswith('loss_'))
        head.zero_grad()
        total.backward()
        seen += [code.grad, *losses.values(), *(centres.grad for centres in head.centres if centres.grad is not None)]
    return [value.detach() for value in seen] + list(head.state_dict().values())


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(
        one.shape == other.shape and torch.equal(one, other) for one, other in zip(first, second)
    )


@pytest.mark.parametrize(
    ('part', 'option'), [(part, option) for part, options in CHANGES.items() for option in options],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)  # fmt: skip
def test_every_option_changes_something(part, option):
    beside, value = CHANGES[part][option]
    if part is OMHHead:
        before, after = beside, beside | {option: value}
    else:
        name = NAMES[part]
        default = dict(type=part.__name__, begin=2) if name == 'reach' else dict(type=part.__name__)
        config = default | beside.get(name, {})
        before, after = beside | {name: config}, beside | {name: config | {option: value}}
    assert same(observed(**before), observed(**before))
    assert not same(observed(**before), observed(**after))


@pytest.mark.parametrize('part', CHANGES, ids=lambda part: part.__name__)
def test_no_option_is_left_out(part):
    options = [name for name in inspect.signature(part).parameters if name not in FILLED_IN - {'begin', 'level_sizes'}]
    if part is not OMHHead:
        options = [name for name in options if name != 'level_sizes' or NAMES[part] != 'plan']
    if NAMES.get(part) == 'centres':
        options.remove('begin')
    assert set(CHANGES[part]) == set(options)
    assert len(options) <= 10


def build(**options: Any) -> OMHHead:
    return OMHHead(in_channels=6, num_classes=3, **options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(centres=dict(type='MomentumCentres', loss_weight=1.0)),
         'centres is a MomentumCentres, which takes no option loss_weight; it takes start, prior, momentum'),
        (dict(centres=dict(momentum=0.9)), 'GradientCentres, which takes no option momentum'),
        (dict(centres=dict(type='JointCentres', loss_weight=1.0)), 'JointCentres, which takes no option loss_weight'),
        (dict(centres=dict(begin=3)), 'takes no option begin'),
        (dict(plan=dict(level_sizes=[3])), 'PlanSolver, which takes no option level_sizes'),
        (dict(match=dict(alpha=2.0)), 'HierarchyMatchingLoss, which takes no option alpha'),
        (dict(reach=dict(share=0.1)), 'HostShare, which takes no option share; it takes begin, ramp'),
        (dict(plan=dict(gradient='solver'), match=None), "gradient='solver' .* needs omh_head.match"),
        (dict(plan=dict(gradient='solver'), centres=dict(type='MomentumCentres')), 'learn by gradient.*Momentum'),
        (dict(centres=dict(type='JointCentres'), match=None), 'JointCentres learn from the losses'),
        (dict(centres=dict(type='JointCentres', prior=1.0)), 'acts through the cluster loss'),
        (dict(match=None, reach=dict(ramp=3)), 'reach.ramp is of losses that reach the features'),
        (dict(level_sizes=[3, 4], num_levels=2), r'level_sizes=\[3, 4\] says how many .*got 2 and None'),
        (dict(level_sizes=[3, 4], expansion=2.0), 'got None and 2.0'),
        (dict(plan=dict(gradient='solver'), level_sizes=[3]), r"gradient='solver' .* two levels .* \[3\]"),
        (dict(centres=dict(type='JointCentres'), num_levels=1), 'JointCentres learn from .* needs two levels'),
        (dict(reach=dict(ramp=3), num_levels=1), 'reach.ramp is of losses'),
        (dict(nonsense=1), r'OMHHead takes no option nonsense \(got 1\)\.'),
    ],
)  # fmt: skip
def test_an_option_that_reaches_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(match=False), 'match must be a dict of options, such as .*, or None to leave it out; got False'),
        (dict(cluster=True), 'cluster must be a dict of options, such as .*; got True'),
        (dict(centres='MomentumCentres'), "centres must be a dict .*; got 'MomentumCentres'"),
        (dict(centres=dict(type='HostShare')), 'centres is a HostShare, which has no joint'),
        (dict(plan=dict(type='ClusterLoss')), 'plan is a ClusterLoss, which has no begin_step'),
        (dict(cluster=dict(type='HierarchyMatchingLoss')), 'has no over_levels'),
        (dict(centres=dict(type='JointCentres', momentum=0.9)), r'centres\._delete_=True'),
        (dict(match=dict(type='ClusterLoss')), 'match is a ClusterLoss, which does not compare the activations'),
        (dict(match=dict(type='CrossEntropyLoss')), 'match is a CrossEntropyLoss, which does not compare'),
        (dict(num_levels=2.5), r'OMHHead: num_levels must be a whole number in \[1, 32\] or None; got 2.5'),
        (dict(level_sizes=3), 'level_sizes must be several of these: a whole number in .*; got 3'),
        (dict(level_sizes=[3, 6.0]), r'level_sizes must be several of these: a whole number'),
        (dict(reach=dict(begin=1e2)), 'begin must be a whole number of steps, or a share of the run .*; got 100.0'),
        (dict(plan=dict(tolerance=math.inf)), r'tolerance must be a number in \(0, 1\); got inf'),
    ],
)  # fmt: skip
def test_what_is_no_part_or_no_number_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize('option', MOVED)
def test_options_of_the_first_version_say_where_they_are(option):
    with pytest.raises(ValueError, match=rf'takes no option {option} \(got 1\); it is .* now') as error:
        build(**{option: 1})
    # What is named as the new place exists.
    place = MOVED[option].split(',')[0].split(' or ')[0].split(' and ')[0]
    if '=' not in place:
        defaults = dict(
            plan=PlanSolver, match=HierarchyMatchingLoss, centres=GradientCentres, cluster=ClusterLoss, reach=HostShare
        )
        part, _, name = place.partition('.')
        assert name in inspect.signature(defaults[part]).parameters, error.value


def test_one_level_says_what_it_silences(monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', said.append)
    build(num_levels=1)
    build(num_levels=2)
    assert len(said) == 1 and 'one level has no pair of levels' in said[0]


def test_a_part_without_its_type_changes_the_default_part():
    head = build(match=dict(direction='both'), cluster=dict(alpha=3.0), reach=dict(begin=7))
    assert (head.match.direction, head.match.loss_weight) == ('both', 0.1)
    assert isinstance(head.cluster, ClusterLoss) and isinstance(head.reach, HostShare) and head.reach.begin == 7
    assert build(match=dict(type='HierarchyMatchingLoss')).match.loss_weight == 0.1


def test_weights_of_the_first_version_load():
    head = build(plan=dict(marginal='activation'))
    state = {key: torch.full_like(value, 0.5) for key, value in head.state_dict().items()}
    old = {'iteration': torch.tensor(7)}
    for key, value in state.items():
        old[key.removeprefix('plan.').replace('rule.start.', 'centre_start.')] = value
    assert {'row_potential_0', 'marginal_2', 'centre_start.pool', 'centres.0'} <= old.keys()
    head.load_state_dict(old)
    assert all(torch.equal(value, state[key]) for key, value in head.state_dict().items())
