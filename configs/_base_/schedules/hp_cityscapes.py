# METHODS.md 4.4: 30 epochs of 232 batches. Validation, which trains nothing, is rarer than the reference's 100.
_base_ = ['./hp.py']
train_cfg = dict(max_iters=6960, val_interval=696)
custom_hooks = [dict(type='ReferencePoolHook', renew_interval=20), *_base_.hp_hooks]
