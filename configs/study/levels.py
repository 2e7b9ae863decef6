_base_ = './_base_/one_host.py'
# N: how many levels there are, and what they cost.
title = 'Number of levels on {host}, {images}'
runs = [
    {{_base_._host}},
    {{_base_._control}},
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
