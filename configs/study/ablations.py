_base_ = './_base_/one_host.py'
# One choice of OMH on the demo scenes changed at a time; what their configs choose anyway (both directions, the prior,
# momentum) is the row `OMH`. For configs without choices of their own: ablations_photos.py.
title = 'Ablations of OMH on {host}, {images}'
references = ['host', 'control', 'OMH']
# `_delete_`: in place of the config's centres, whatever options those have.
_by_gradient = dict(_delete_=True, type='GradientCentres')
_fixed_weight = {'model.omh_head.reach.type': 'FixedWeight', 'model.omh_head.match.loss_weight': 0.03}
# One undetached loss trains centres and features together from the first step.
_literal = {
    'model.omh_head.centres': dict(_delete_=True, type='JointCentres'),
    'model.omh_head.reach': dict(_delete_=True, type='FixedWeight', begin=0),
}
_random_start = dict(name='random start', options={'model.omh_head.centres.start': 'random'})
_fixed_weight_row = dict(name='fixed weight .03', options=_fixed_weight)
_random_by_gradient = dict(
    name='random start, by gradient, fixed weight .03',
    options={'model.omh_head.centres': dict(_by_gradient, start='random'), **_fixed_weight},
)
_literal_strong = dict(
    name='literal, .3 and .3',
    options={**_literal, 'model.omh_head.cluster.loss_weight': 0.3, 'model.omh_head.match.loss_weight': 0.3},
)
_literal_weak = dict(
    name='literal, .03 and .03',
    options={**_literal, 'model.omh_head.cluster.loss_weight': 0.03, 'model.omh_head.match.loss_weight': 0.03},
)
_cluster_only = dict(
    name='cluster loss only', options={'model.omh_head.cluster.loss_weight': 0.3, 'model.omh_head.match': None}
)
_cluster_and_matching = dict(
    name='cluster and matching loss', options={'model.omh_head.cluster.loss_weight': 0.3}
)
_lower_fixed = dict(name='transported side fixed', options={'model.omh_head.match.target': 'lower'})
_higher_fixed = dict(name='other side fixed', options={'model.omh_head.match.target': 'higher'})
_coarse_to_fine = dict(name='coarse to fine', options={'model.omh_head.match.direction': 'coarse_to_fine'})
_raw_plan = dict(name='raw plan', options={'model.omh_head.match.conditioning': 'none'})
_marginals = dict(name='marginals of the activations', options={'model.omh_head.plan.marginal': 'activation'})
_from_step_0 = dict(name='features from step 0', options={'model.omh_head.reach.begin': 0})
_ramp = dict(name='ramp of 100 steps', options={'model.omh_head.reach.ramp': 100})
runs = [
    {{_base_._host}},
    {{_base_._control}},
    dict(name='OMH'),
    _random_start,
    dict(name='momentum .97', options={'model.omh_head.centres.momentum': 0.97}),
    dict(name='centres by gradient', options={'model.omh_head.centres': _by_gradient}),
    _fixed_weight_row,
    _random_by_gradient,
    _literal_strong,
    _literal_weak,
    _cluster_only,
    _cluster_and_matching,
    _lower_fixed,
    _higher_fixed,
    dict(name='fine to coarse', options={'model.omh_head.match.direction': 'fine_to_coarse'}),
    _coarse_to_fine,
    _raw_plan,
    # To be compared with `centres by gradient`: no other centres take a gradient, through the solver or in a soft loss.
    dict(
        name='centres by gradient, also through the solver',
        options={'model.omh_head.centres': _by_gradient, 'model.omh_head.plan.gradient': 'solver'},
        references=['host', 'control', 'centres by gradient'],
    ),
    dict(
        name='centres by gradient, soft assignment',
        options={'model.omh_head.centres': dict(_by_gradient, alpha=10.0)},
        references=['host', 'control', 'centres by gradient'],
    ),
    _marginals,
    dict(name='levels choose by themselves', options={'model.omh_head.centres.prior': 0.0}),
    _from_step_0,
    _ramp,
]
columns = [
    'probe/mIoU', 'probe/aAcc', 'level1/mIoU', 'level1/aAcc', 'linear/mIoU', 'train/omh_used_1', 'train/omh_used_2',
    'train/omh_used_3', 'train/omh_sparsity_12',
]  # fmt: skip
figures = [
    dict(kind='effects', file='ablations.png', metrics=['level1/mIoU', 'probe/mIoU'], reference='host',
         title='Ablations of OMH on {host}, {images}'),
]  # fmt: skip
