# lambda: how sparse the plans are, with hard and with soft assignment of positions to clusters.
title = 'Entropy weight of the plans on {host}, {images}'
placeholders = dict(host='stego', data='vit-t8_demo', images='the demo scenes')
config = 'configs/omh_{host}_{data}.py'
seeds = [0, 1, 2]
references = ['host', 'control']
_lambdas = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
runs = [
    dict(name='host', config='configs/{host}_{data}.py', references=[]),
    dict(name='control', options={'model.omh_head.match_weight': 0, 'model.omh_head.cluster_weight': 0}),
    dict(name='hard', vary={'model.omh_head.entropy_weight': _lambdas}),
    dict(
        name='soft',
        options={'model.omh_head.assignment': 'soft'},
        vary={'model.omh_head.entropy_weight': _lambdas},
    ),
]
columns = [
    'probe/mIoU', 'level1/mIoU', 'level1/aAcc', 'linear/mIoU', 'train/omh_sparsity_12', 'train/omh_sparsity_23',
    'train/omh_parents_mean_12', 'train/omh_violation_12', 'train/omh_iterations_12', 'train/omh_used_3',
]  # fmt: skip
figures = [
    dict(
        kind='curves', file='lambda.png', curves=['hard', 'soft'], x_label='lambda', log_x=True,
        references=['host', 'control'], title='Entropy weight of the plans on {host}, {images}',
        panels=[
            dict(label='mIoU of level 1', metrics=['level1/mIoU']),
            dict(label='share of entries above 1 % of the row',
                 metrics=['train/omh_sparsity_12', 'train/omh_sparsity_23'], references=[]),
            dict(label='effective parents', metrics=['train/omh_parents_mean_12', 'train/omh_parents_mean_23'],
                 references=[]),
        ],
    ),
]  # fmt: skip
