# METHODS.md 4.4: 10 epochs of 71 batches. Validation, which trains nothing, is rarer than the reference's 50.
_base_ = ['./hp.py']
train_cfg = dict(max_iters=710, val_interval=142)
custom_hooks = [dict(type='ReferencePoolHook', renew_interval=20), *_base_.hp_hooks]
