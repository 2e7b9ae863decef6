_base_ = './_base_/one_host.py'
# tau: how soft the activations are that the matching compares.
title = 'Temperature of OMH on {host}, {images}'
runs = [
    {{_base_._host}},
    {{_base_._control}},
    dict(name='tau', vary={'model.omh_head.temperature': [0.03, 0.05, 0.1, 0.2, 0.4]}),
]
columns = [
    'probe/mIoU', 'probe/aAcc', 'level1/mIoU', 'level1/aAcc', 'linear/mIoU', 'train/omh_used_1', 'train/omh_used_2',
    'train/omh_used_3',
]  # fmt: skip
figures = [
    dict(
        kind='curves', file='temperature.png', curves=['tau'], x_label='tau', log_x=True,
        references=['host', 'control'], title='Temperature of OMH on {host}, {images}',
        panels=[
            dict(label='mIoU', metrics=['level1/mIoU', 'probe/mIoU']),
            dict(label='clusters in use', metrics=['train/omh_used_1', 'train/omh_used_2', 'train/omh_used_3']),
        ],
    ),
]  # fmt: skip
