_base_ = './_base_/one_host.py'
# rho: how much finer each level is than the one above it; 1 is no hierarchy.
title = 'Expansion of the levels on {host}, {images}'
runs = [
    {{_base_._host}},
    {{_base_._control}},
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
