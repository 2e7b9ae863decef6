_base_ = './_base_/one_host.py'
# One choice of OMH changed at a time. `literal` trains centres and features together from the first step.
title = 'Ablations of OMH on {host}, {images}'
references = ['host', 'control', 'OMH']
runs = [
    {{_base_._host}},
    {{_base_._control}},
    dict(name='OMH'),
    dict(name='random start', options={'model.omh_head.centre_start': 'random'}),
    dict(name='centres by momentum', options={'model.omh_head.centre_update': 'momentum'}),
    dict(name='centres by gradient', options={'model.omh_head.centre_update': 'gradient'}),
    dict(
        name='fixed weight .03',
        options={'model.omh_head.weighting': 'fixed', 'model.omh_head.match_weight': 0.03},
    ),
    dict(
        name='random start, by gradient, fixed weight .03',
        options={
            'model.omh_head.centre_start': 'random',
            'model.omh_head.centre_update': 'gradient',
            'model.omh_head.weighting': 'fixed',
            'model.omh_head.match_weight': 0.03,
        },
    ),
    dict(
        name='literal, .3 and .3',
        options={
            'model.omh_head.mode': 'literal',
            'model.omh_head.centre_start': 'random',
            'model.omh_head.centre_update': 'gradient',
            'model.omh_head.weighting': 'fixed',
            'model.omh_head.cluster_weight': 0.3,
            'model.omh_head.match_weight': 0.3,
        },
    ),
    dict(
        name='literal, .03 and .03',
        options={
            'model.omh_head.mode': 'literal',
            'model.omh_head.centre_start': 'random',
            'model.omh_head.centre_update': 'gradient',
            'model.omh_head.weighting': 'fixed',
            'model.omh_head.cluster_weight': 0.03,
            'model.omh_head.match_weight': 0.03,
        },
    ),
    dict(
        name='cluster loss only',
        options={'model.omh_head.cluster_weight': 0.3, 'model.omh_head.match_weight': 0},
    ),
    dict(name='cluster and matching loss', options={'model.omh_head.cluster_weight': 0.3}),
    dict(name='transported side fixed', options={'model.omh_head.target': 'lower'}),
    dict(name='other side fixed', options={'model.omh_head.target': 'higher'}),
    dict(name='fine to coarse', options={'model.omh_head.direction': 'fine_to_coarse'}),
    dict(name='coarse to fine', options={'model.omh_head.direction': 'coarse_to_fine'}),
    dict(name='both directions', options={'model.omh_head.direction': 'both'}),
    dict(name='raw plan', options={'model.omh_head.conditioning': 'none'}),
    dict(name='gradient through the solver', options={'model.omh_head.plan_gradient': 'solver'}),
    dict(name='marginals of the activations', options={'model.omh_head.marginal': 'activation'}),
    # Centres that follow by momentum have no loss that could be soft.
    dict(
        name='centres by gradient, soft assignment',
        options={'model.omh_head.centre_update': 'gradient', 'model.omh_head.assignment': 'soft'},
    ),
    dict(name='levels choose by themselves', options={'model.omh_head.prior_weight': 0.0}),
    dict(name='prior of the coarser level', options={'model.omh_head.prior_weight': 1.0}),
    dict(name='features from step 0', options={'model.omh_head.start_iteration': 0}),
    dict(name='ramp of 100 steps', options={'model.omh_head.ramp_iterations': 100}),
]
columns = [
    'probe/mIoU', 'probe/aAcc', 'level1/mIoU', 'level1/aAcc', 'linear/mIoU', 'train/omh_used_1', 'train/omh_used_2',
    'train/omh_used_3', 'train/omh_sparsity_12',
]  # fmt: skip
figures = [
    dict(kind='effects', file='ablations.png', metrics=['level1/mIoU', 'probe/mIoU'], reference='host',
         title='Ablations of OMH on {host}, {images}'),
]  # fmt: skip
