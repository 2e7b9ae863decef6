_base_ = './_base_/omh.py'
# Video: what the temporal term does to scores and to steadiness, and whether coarse levels flicker less than fine ones.
# Run it with --protocols video, whose figures (docs/video.md) are TC and changes. The host is the probe of the control.
# 'next frame' takes the frame that comes next for STEGO's neighbour; it is of the moving scenes and STEGO alone.
title = 'Steadiness of {host} from frame to frame, {images}'
placeholders = dict(host='stego', data='vit-t8_moving', images='the demo scenes in motion')
config = 'configs/omh_{host}_{data}.py'
seeds = [0, 1, 2, 3, 4]
references = ['control']
_term = {'model.temporal': dict(type='TemporalConsistencyLoss', loss_weight=0.1)}
_probe_too = {'model.temporal': dict(type='TemporalConsistencyLoss', loss_weight=0.1, clusterings='all')}
_weak = {'model.temporal': dict(type='TemporalConsistencyLoss', loss_weight=0.02)}
_strong = {'model.temporal': dict(type='TemporalConsistencyLoss', loss_weight=1.0)}
runs = [
    dict(name='control', options={{_base_._control_options}}, references=[]),
    dict(name='term alone', options={'model.omh_head.match': None, 'model.omh_head.cluster': None, **_term}),
    dict(name='OMH'),
    dict(name='OMH + term', options=_term, references=['control', 'OMH']),
    dict(name='OMH + term 0.02', options=_weak, references=['control', 'OMH']),
    dict(name='OMH + term 1.0', options=_strong, references=['control', 'OMH']),
    dict(name='OMH + term, probe too', options=_probe_too, references=['control', 'OMH', 'OMH + term']),
    dict(
        name='OMH, next frame',
        options={
            'train_dataloader.dataset': dict(
                _delete_=True,
                type='TemporalPairs',
                view='neighbour',
                dataset=dict(
                    type='MovingScenes',
                    data_root='data/moving_scenes',
                    split='train',
                    pipeline=[
                        dict(type='LoadImageFromFile', _scope_='omh_mmseg'),
                        dict(type='LoadOptionalAnnotations'),
                        dict(type='PackSegInputs'),
                    ],
                ),
            )
        },
        references=['control', 'OMH'],
    ),
]
columns = [
    'probe/mIoU', 'level1/mIoU', 'level1/aAcc', 'video:probe/TC', 'video:level1/TC', 'video:level2/TC',
    'video:level3/TC', 'video:probe/changes', 'video:level1/changes', 'video:level2/changes', 'video:level3/changes',
]  # fmt: skip
figures = [
    dict(kind='effects', file='video.png', metrics=['video:level1/TC', 'level1/mIoU'], reference='control',
         title='Level 1 against that of the control, {images}'),
]  # fmt: skip
