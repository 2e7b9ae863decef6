_base_ = './_base_/one_host.py'
# lambda: how sparse the plans are, and what becomes of the scores.
title = 'Entropy weight of the plans on {host}, {images}'
runs = [
    {{_base_._host}},
    {{_base_._control}},
    dict(name='lambda', vary={'model.omh_head.plan.entropy_weight': [0.005, 0.01, 0.02, 0.05, 0.1, 0.2]}),
]
columns = [
    'probe/mIoU', 'level1/mIoU', 'level1/aAcc', 'linear/mIoU', 'train/omh_sparsity_12', 'train/omh_sparsity_23',
    'train/omh_parents_mean_12', 'train/omh_violation_12', 'train/omh_iterations_12', 'train/omh_used_3',
]  # fmt: skip
figures = [
    dict(
        kind='curves', file='lambda.png', curves=['lambda'], x_label='lambda', log_x=True,
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
