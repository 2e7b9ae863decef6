# METHODS.md 4.4: 3 epochs of 7632 batches. Validation, which trains nothing, is rarer than the reference's 100.
_base_ = ['./hp.py']
train_cfg = dict(max_iters=22896, val_interval=2000)
custom_hooks = [dict(type='ReferencePoolHook', renew_interval=100), *_base_.hp_hooks]
