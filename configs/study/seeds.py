# The runs that the hierarchy commands compare: one setting, many seeds.
title = 'OMH on {host} with many seeds, {images}'
placeholders = dict(host='stego', data='vit-t8_demo', images='the demo scenes')
seeds = [0, 1, 2, 3, 4]
runs = [
    dict(name='control', config='configs/omh_{host}_{data}.py',
         options={'model.omh_head.match_weight': 0, 'model.omh_head.cluster_weight': 0}),
    dict(name='OMH', config='configs/omh_{host}_{data}.py', references=['control']),
]  # fmt: skip
columns = [
    'probe/mIoU', 'level1/mIoU', 'train/omh_sparsity_12', 'train/omh_sparsity_23', 'train/omh_parents_mean_12',
    'train/omh_parents_mean_23', 'train/omh_used_1', 'train/omh_used_2', 'train/omh_used_3',
]  # fmt: skip
