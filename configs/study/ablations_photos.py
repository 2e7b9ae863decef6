_base_ = './ablations.py'
# The same where the configs choose nothing of OMH, as those of folders do: centres by gradient, fine to coarse and no
# prior are the row `OMH`.
placeholders = dict(data='mobilenet-v2_folder', images='my photos')
runs = [
    {{_base_._host}},
    {{_base_._control}},
    dict(name='OMH'),
    {{_base_._random_start}},
    dict(
        name='centres by momentum',
        options={'model.omh_head.centres': dict(_delete_=True, type='MomentumCentres', momentum=0.97)},
    ),
    {{_base_._fixed_weight_row}},
    dict(
        name='random start, fixed weight .03',
        options={
            'model.omh_head.centres.start': 'random',
            'model.omh_head.reach.type': 'FixedWeight',
            'model.omh_head.match.loss_weight': 0.03,
        },
    ),
    {{_base_._literal_strong}},
    {{_base_._literal_weak}},
    {{_base_._cluster_only}},
    {{_base_._cluster_and_matching}},
    {{_base_._lower_fixed}},
    {{_base_._higher_fixed}},
    {{_base_._coarse_to_fine}},
    dict(name='both directions', options={'model.omh_head.match.direction': 'both'}),
    {{_base_._raw_plan}},
    dict(name='through the solver', options={'model.omh_head.plan.gradient': 'solver'}),
    dict(name='soft assignment', options={'model.omh_head.centres.alpha': 10.0}),
    {{_base_._marginals}},
    dict(name='prior of the coarser level', options={'model.omh_head.centres.prior': 1.0}),
    {{_base_._from_step_0}},
    {{_base_._ramp}},
]
