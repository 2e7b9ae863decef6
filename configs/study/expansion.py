# rho: how much finer each level is than the one above it; 1 is no hierarchy.
title = 'Expansion of the levels on {host}, {images}'
placeholders = dict(host='stego', data='vit-t8_demo', images='the demo scenes')
config = 'configs/omh_{host}_{data}.py'
seeds = [0, 1, 2]
references = ['host', 'control']
runs = [
    dict(name='host', config='configs/{host}_{data}.py', references=[]),
    dict(name='control', options={'model.omh_head.match_weight': 0, 'model.omh_head.cluster_weight': 0}),
    dict(name='rho', vary={'model.omh_head.expansion': [1.0, 1.2, 1.5, 2.0, 3.0]}),
]
columns = [
    'probe/mIoU', 'probe/aAcc', 'level1/mIoU', 'level1/aAcc', 'linear/mIoU', 'train/omh_sparsity_12',
    'train/omh_used_2', 'train/omh_used_3',
]  # fmt: skip
figures = [
    dict(
        kind='curves', file='expansion.png', curves=['rho'], x_label='rho', references=['host', 'control'],
        title='Expansion of the levels on {host}, {images}',
        panels=[
            dict(label='mIoU', metrics=['level1/mIoU', 'probe/mIoU']),
            dict(label='clusters in use', metrics=['train/omh_used_1', 'train/omh_used_2', 'train/omh_used_3']),
        ],
    ),
]  # fmt: skip
