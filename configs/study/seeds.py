_base_ = './_base_/one_host.py'
# The runs that the hierarchy commands compare: one setting, many seeds.
title = 'OMH on {host} with many seeds, {images}'
seeds = [0, 1, 2, 3, 4]
runs = [
    {{_base_._host}},
    {{_base_._control}},
    dict(name='OMH'),
]
columns = [
    'probe/mIoU', 'probe/aAcc', 'level1/mIoU', 'level1/aAcc', 'train/omh_sparsity_12', 'train/omh_sparsity_23',
    'train/omh_parents_mean_12', 'train/omh_parents_mean_23', 'train/omh_used_1', 'train/omh_used_2',
    'train/omh_used_3',
]  # fmt: skip
