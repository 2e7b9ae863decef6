# What HP loses, or not, by jittered views from a small set that the feature cache holds, in place of a fresh one in
# each step. The cache is switched on by default_hooks.feature_cache.folder, for all runs: docs/feature_cache.md.
title = 'Cached jittered views of HP, {images}'
placeholders = dict(data='vit-t8_demo', images='the demo scenes')
seeds = [0, 1, 2]
runs = [
    dict(name='fresh views', config='configs/hp_{data}.py', references=[]),
    dict(name='views', config='configs/hp_{data}.py', vary={'default_hooks.feature_cache.views': [1, 2, 4, 8]}),
    dict(name='no view', config='configs/hp_{data}.py', options={'model.hidden_positive_loss.consistency_weight': 0.0}),
]
references = ['fresh views']
columns = ['probe/mIoU', 'probe/aAcc', 'linear/mIoU', 'train/loss_consistency']
figures = [
    dict(
        kind='curves', file='views.png', curves=['views'], x_label='cached views per image', log_x=True,
        references=['fresh views', 'no view'], title='Cached jittered views of HP, {images}',
        panels=[
            dict(label='mIoU of the probe', metrics=['probe/mIoU']),
            dict(label='consistency loss', metrics=['train/loss_consistency'], references=['fresh views']),
        ],
    ),
]  # fmt: skip
