# The demo's own choice: half of its 40-step epochs.
_base_ = ['./hp.py']
train_cfg = dict(max_iters=300, val_interval=300)
custom_hooks = [dict(type='ReferencePoolHook', renew_interval=20), *_base_.hp_hooks]
