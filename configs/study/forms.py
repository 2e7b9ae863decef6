_base_ = './_base_/one_host.py'
# Forms of OMH beside the study's: fewer levels, a wider tree, plans with the clusters' own sizes, a longer training.
# Each is compared after the closing refit, too, where what a form does to the centres alone is gone.
title = 'Forms of OMH on {host}, {images}'
references = ['control']
_share = {'model.omh_head.match.loss_weight': 0.3}
runs = [
    dict(name='control', options={{_base_._control_options}}, references=[]),
    dict(name='control + refit', of='control', refit=True, references=[]),
    dict(name='share 0.3', options=_share, references=['control']),
    dict(name='share 0.3 + refit', of='share 0.3', refit=True, references=['control + refit']),
    dict(name='N 2', options={**_share, 'model.omh_head.num_levels': 2}, references=['share 0.3']),
    dict(name='N 2 + refit', of='N 2', refit=True, references=['control + refit', 'share 0.3 + refit']),
    dict(name='rho 4', options={**_share, 'model.omh_head.expansion': 4.0}, references=['share 0.3']),
    dict(name='rho 4 + refit', of='rho 4', refit=True, references=['control + refit', 'share 0.3 + refit']),
    dict(name='usage', options={**_share, 'model.omh_head.plan.marginal': 'activation'}, references=['share 0.3']),
    dict(name='usage + refit', of='usage', refit=True, references=['control + refit', 'share 0.3 + refit']),
]
columns = [
    'probe/mIoU', 'probe/aAcc', 'level1/mIoU', 'level1/aAcc', 'level1/clusters', 'train/omh_used_2',
    'train/omh_used_3',
]  # fmt: skip
figures = [
    dict(kind='effects', file='forms.png', metrics=['level1/mIoU', 'level1/aAcc'], reference='control',
         title='Level 1 against that of the control, {images}'),
]  # fmt: skip
