_base_ = './_base_/omh.py'
# Host against host + OMH, with the control: OMH's clusterings beside the host, nothing of which reaches the features.
# What the control gains over the host is the gain of a second clustering with another start.
title = 'Host against host + OMH, {images}'
placeholders = dict(data='vit-t8_demo', images='the demo scenes')
seeds = [0, 1, 2]
runs = [
    dict(name='STEGO', config='configs/stego_{data}.py', references=[]),
    dict(name='STEGO, control', config='configs/omh_stego_{data}.py', references=['STEGO'],
         options={{_base_._control_options}}),
    dict(name='STEGO + OMH', config='configs/omh_stego_{data}.py', references=['STEGO', 'STEGO, control']),
    dict(name='HP', config='configs/hp_{data}.py', references=[]),
    dict(name='HP, control', config='configs/omh_hp_{data}.py', references=['HP'],
         options={{_base_._control_options}}),
    dict(name='HP + OMH', config='configs/omh_hp_{data}.py', references=['HP', 'HP, control']),
    dict(name='SmooSeg', config='configs/smooseg_{data}.py', references=[]),
    dict(name='SmooSeg, control', config='configs/omh_smooseg_{data}.py', references=['SmooSeg'],
         options={{_base_._control_options}}),
    dict(name='SmooSeg + OMH', config='configs/omh_smooseg_{data}.py', references=['SmooSeg', 'SmooSeg, control']),
]  # fmt: skip
columns = [
    'probe/mIoU', 'probe/aAcc', 'level1/mIoU', 'level1/aAcc', 'linear/mIoU', 'linear/aAcc', 'train/omh_used_1',
    'train/omh_used_2', 'train/omh_used_3',
]  # fmt: skip
figures = [
    dict(kind='effects', file='hosts.png', metrics=['level1/mIoU', 'probe/mIoU'], reference='*',
         title='Gain over the host, {images}'),
]  # fmt: skip
