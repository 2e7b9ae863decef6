# Whether the hosts work against the matching: its gradient on the code beside theirs, over the last steps.
title = 'Gradient of the matching and of the host on the code, {images}'
placeholders = dict(data='vit-t8_demo', images='the demo scenes')
seeds = [0, 1, 2]
options = {'model.gradient_log_interval': 1}
runs = [
    dict(name='STEGO + OMH', config='configs/omh_stego_{data}.py'),
    dict(name='HP + OMH', config='configs/omh_hp_{data}.py'),
    dict(name='SmooSeg + OMH', config='configs/omh_smooseg_{data}.py'),
]
columns = [
    'train/code_cosine_omh_match', 'train/code_gradient_omh_match', 'train/omh_match_12', 'train/omh_match_23',
    'probe/mIoU', 'level1/mIoU',
]  # fmt: skip
