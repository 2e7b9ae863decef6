_base_ = './_base_/one_host.py'
# How much of OMH reaches the features, as a share of the host's gradient on the code; the control is a share of 0.
title = 'Weights of OMH on {host}, {images}'
runs = [
    {{_base_._host}},
    {{_base_._control}},
    dict(name='matching', vary={'model.omh_head.match.loss_weight': [0.03, 0.1, 0.3, 1.0, 3.0]}),
    dict(
        name='cluster loss',
        options={'model.omh_head.match': None},
        vary={'model.omh_head.cluster.loss_weight': [0.03, 0.1, 0.3, 1.0, 3.0]},
    ),
]
columns = [
    'probe/mIoU', 'probe/aAcc', 'level1/mIoU', 'level1/aAcc', 'linear/mIoU', 'train/omh_used_1', 'train/omh_used_2',
    'train/omh_used_3',
]  # fmt: skip
figures = [
    dict(
        kind='curves', file='weights.png', curves=['matching', 'cluster loss'], x_label='weight', log_x=True,
        references=['host', 'control'], title='Weights of OMH on {host}, {images}',
        panels=[
            dict(label='mIoU of level 1', metrics=['level1/mIoU']),
            dict(label='mIoU of the probe', metrics=['probe/mIoU']),
            dict(label='clusters in use, level 3', metrics=['train/omh_used_3']),
        ],
    ),
]  # fmt: skip
