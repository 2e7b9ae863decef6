# N: how many levels there are, and what they cost.
title = 'Number of levels on {host}, {images}'
placeholders = dict(host='stego', data='vit-t8_demo', images='the demo scenes')
config = 'configs/omh_{host}_{data}.py'
seeds = [0, 1, 2]
references = ['host', 'control']
runs = [
    dict(name='host', config='configs/{host}_{data}.py', references=[]),
    dict(name='control', options={'model.omh_head.match_weight': 0, 'model.omh_head.cluster_weight': 0}),
    dict(name='N', vary={'model.omh_head.num_levels': [1, 2, 3, 4, 5]}),
]
columns = [
    'probe/mIoU', 'probe/aAcc', 'level1/mIoU', 'level1/aAcc', 'linear/mIoU', 'train/omh_used_2', 'train/omh_used_3',
]  # fmt: skip
figures = [
    dict(
        kind='curves', file='levels.png', curves=['N'], x_label='N', references=['host', 'control'],
        title='Number of levels on {host}, {images}',
        panels=[
            dict(label='mIoU', metrics=['level1/mIoU', 'probe/mIoU']),
            dict(label='ms per step', metrics=['ms_per_step']),
            dict(label='peak memory (MiB)', metrics=['memory']),
        ],
    ),
]  # fmt: skip
