"""Building the parts of `OMHHead`, and refusing options where nothing would come of them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from omh_mmseg.registry import MODELS

PLAN = dict(type='PlanSolver')
CENTRES = dict(type='GradientCentres')
MATCH = dict(type='HierarchyMatchingLoss', loss_weight=0.1)
CLUSTER = dict(type='ClusterLoss')
REACH = dict(type='HostShare')
NEEDED = dict(plan='begin_step', centres='joint', reach='scales_gradients', match='loss_weight', cluster='over_levels')
"""What tells a part of one kind from those of the others."""
MOVED = dict(
    entropy_weight='plan.entropy_weight', plan_gradient='plan.gradient', marginal='plan.marginal',
    tolerance='plan.tolerance', max_iterations='plan.max_iterations', warm_start='plan.warm_start',
    mode="centres=dict(type='GradientCentres') or dict(type='JointCentres')",
    centre_weight="centres=dict(type='GradientCentres', loss_weight=...)",
    centre_start='centres.start', centre_update="centres=dict(type='MomentumCentres')",
    centre_momentum="centres=dict(type='MomentumCentres', momentum=...)", prior_weight='centres.prior',
    cluster_weight="cluster=dict(type='ClusterLoss', loss_weight=...)", assignment='cluster.alpha and centres.alpha',
    match_weight='match.loss_weight, or match=None for no matching', direction='match.direction',
    conditioning='match.conditioning', target='match.target',
    weighting="reach=dict(type='FixedWeight') or dict(type='HostShare')", start_iteration='reach.begin',
    ramp_iterations='reach.ramp',
)  # fmt: skip
"""Where the flat options of version 0.1 are now."""


def build_part(name: str, given: Mapping[str, Any] | None, default: Mapping[str, Any], **sizes: Any) -> Any:
    """Build a part of the head.

    Args:
        name: Its name in the head's config, for messages.
        given: Its config; without ``type``, or of the default's type, it changes the default's options. None for the
            default.
        default: What it is where nothing is said.
        **sizes: Arguments that the head fills in, as far as the part takes them.

    Raises:
        ValueError: For an option that the part does not take, naming those that it takes; for what is no such part.
    """
    if not isinstance(given, Mapping | None):
        without = ', or None to leave it out' if name in ('match', 'cluster') else ''
        raise ValueError(f'omh_head.{name} must be a dict of options, such as {default}{without}; got {given!r}.')
    config = dict(given or {})
    if config.get('type', default['type']) == default['type']:
        config = {**default, **config}
    part = MODELS.get(config['type'])
    if part is None:
        raise ValueError(f'omh_head.{name}.type is {config["type"]!r}, which is not registered.')
    takes = inspect.signature(part).parameters
    unknown = [option for option in config if option != 'type' and (option not in takes or option in sizes)]
    if unknown:
        options = ', '.join(option for option in takes if option not in sizes)
        raise ValueError(
            f'omh_head.{name} is a {part.__name__}, which takes no option {", ".join(unknown)}; it takes {options}. '
            f'Options that a config sets for a part of another type go with omh_head.{name}._delete_=True.'
        )
    built = MODELS.build({**config, **{option: value for option, value in sizes.items() if option in takes}})
    if not hasattr(built, NEEDED[name]):
        raise ValueError(f'omh_head.{name} is a {part.__name__}, which has no {NEEDED[name]}; default: {default}.')
    if name == 'match':
        _check_matching(built)
    return built


def _check_matching(loss: Any) -> None:
    """Raise ValueError if a loss does not compare two levels under a plan: other losses have weights as well."""
    try:
        with torch.no_grad():
            value = loss(torch.full((1, 2), 1 / 2), torch.full((1, 3), 1 / 3), torch.full((2, 3), 1 / 6))
        fits = isinstance(value, Tensor) and value.dim() == 0
    except Exception:  # whatever another loss makes of these arguments
        fits = False
    if not fits:
        raise ValueError(
            f'omh_head.match is a {type(loss).__name__}, which does not compare the activations (P, K_l) and '
            f'(P, K_{{l+1}}) of two levels under their plan; default: {MATCH}.'
        )


def refuse_unknown(options: Mapping[str, Any]) -> None:
    """Raise ValueError for options that the head does not take, naming where those of version 0.1 are now."""
    for option, value in options.items():
        hint = f'; it is {MOVED[option]} now' if option in MOVED else ''
        raise ValueError(f'OMHHead takes no option {option} (got {value!r}){hint}.')


def refuse_idle(head: Any) -> None:
    """Raise ValueError for an option that another one silences.

    Args:
        head: An `OMHHead` with its parts.
    """
    for name in ('match', 'cluster'):
        loss = getattr(head, name)
        if loss is not None and not 0 < loss.loss_weight < math.inf:
            raise ValueError(
                f'omh_head.{name}.loss_weight must be finite and above 0; got {loss.loss_weight}. Leave the loss out '
                f'with omh_head.{name}=None.'
            )
    rule = type(head.rule).__name__
    matches = head.match is not None and len(head.level_sizes) > 1
    nothing = not matches and head.cluster is None
    if head.rule.joint and nothing:
        raise ValueError(
            f'{rule} learn from the losses that reach the features; set omh_head.match, which needs two levels, or '
            'omh_head.cluster.'
        )
    if head.rule.joint and head.rule.prior > 0 and head.cluster is None:
        raise ValueError(f'centres.prior of {rule} acts through the cluster loss; set omh_head.cluster or prior=0.')
    if head.plan.gradient == 'solver' and (not matches or not head.rule.learns_by_gradient):
        raise ValueError(
            "plan.gradient='solver' moves centres through the matching loss; it needs omh_head.match, two levels and "
            f'centres that learn by gradient, and got match={head.match}, {head.level_sizes} and {rule}.'
        )
    if head.reach.ramp > 0 and nothing:
        raise ValueError('reach.ramp is of losses that reach the features; set omh_head.match or cluster, or ramp=0.')


def rename_old_keys(state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let weights of version 0.1 load: a hook of ``load_state_dict``, before the head's keys are read."""
    state.pop(f'{prefix}iteration', None)
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if name.startswith(('row_potential_', 'column_potential_', 'marginal_')):
            state[f'{prefix}plan.{name}'] = state.pop(key)
        elif name.startswith('centre_start.'):
            state[f'{prefix}rule.{name.removeprefix("centre_")}'] = state.pop(key)
