# A host whose code is frozen, before and after a closing refit of its clusterings. Nothing of OMH reaches a feature
# here, so that there is no control: level 1 of OMH is the host's own clustering, and the host is its probe.
title = 'The closing refit on {host}, {images}'
placeholders = dict(host='primaps', data='vit-t8_demo', images='the demo scenes')
config = 'configs/omh_{host}_{data}.py'
seeds = [0, 1, 2, 3, 4]
# Rows that show a refit make it after the training.
options = {'default_hooks.closing_refit.clusterings': 'none'}
runs = [
    dict(name='host', of='OMH', heads=['probe'], references=[]),
    dict(name='host + refit', of='OMH', refit=True, heads=['probe'], references=['host']),
    dict(name='OMH', references=['host']),
    dict(name='OMH + refit', of='OMH', refit=True, references=['host', 'OMH']),
]
columns = [
    'probe/mIoU', 'probe/aAcc', 'probe/clusters', 'probe/effective', 'level1/mIoU', 'level1/aAcc', 'level1/clusters',
    'level1/effective', 'level1/delta',
]  # fmt: skip
figures = [
    dict(kind='effects', file='refit.png', metrics=['probe/mIoU', 'probe/aAcc'], reference='host',
         title='Gain over the host, {images}'),
]  # fmt: skip
