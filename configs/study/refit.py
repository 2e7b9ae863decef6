_base_ = './_base_/one_host.py'
# Host, control and OMH, each before and after a closing refit of its clusterings. The host is the probe of the control,
# bit by bit, so that nothing is trained for it.
title = 'The closing refit on {host}, {images}'
seeds = [0, 1, 2, 3, 4]
runs = [
    dict(name='host', of='control', heads=['probe'], references=[]),
    dict(name='host + refit', of='control', refit=True, heads=['probe'], references=['host']),
    dict(name='control', options={{_base_._control_options}}, references=['host']),
    dict(name='control + refit', of='control', refit=True, references=['host', 'control']),
    dict(name='OMH', references=['host', 'control']),
    dict(name='OMH + refit', of='OMH', refit=True, references=['host', 'control + refit', 'OMH']),
    dict(name='OMH, share 0.3', options={'model.omh_head.match.loss_weight': 0.3}, references=['host', 'control']),
    dict(name='OMH, share 0.3, + refit', of='OMH, share 0.3', refit=True,
         references=['host', 'control + refit', 'OMH + refit']),
]  # fmt: skip
columns = [
    'probe/mIoU', 'probe/aAcc', 'probe/clusters', 'probe/effective', 'level1/mIoU', 'level1/aAcc', 'level1/clusters',
    'level1/effective', 'level1/delta',
]  # fmt: skip
figures = [
    dict(kind='effects', file='refit.png', metrics=['level1/mIoU', 'level1/aAcc'], reference='host',
         title='Gain of level 1 over the host, {images}'),
]  # fmt: skip
