# Our choice: as many steps as STEGO's on a folder; the pool is renewed as often as on Cityscapes (METHODS.md 4.4).
_base_ = ['./hp.py']
train_cfg = dict(max_iters=500, val_interval=500)
custom_hooks = [dict(type='ReferencePoolHook', renew_interval=20), *_base_.hp_hooks]
