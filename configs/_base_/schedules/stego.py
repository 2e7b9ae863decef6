# STEGO's training (docs/methods/stego.md 3A.6): constant learning rates 5e-4 on the head and 5e-3 on the probes, no
# decay. OMH's centres learn like the cluster probe. The experiment adds batch size and steps, which count batches
# (docs/methods/stego.md 8.3).
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainableOptimWrapperConstructor',
    optimizer=dict(type='Adam', lr=5e-4),
    paramwise_cfg=dict(
        custom_keys={
            'cluster_probe': dict(lr_mult=10),
            'linear_probe': dict(lr_mult=10),
            'omh_head': dict(lr_mult=10),
        }
    ),
)
train_cfg = dict(type='IterBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(type='NonFiniteLossHook'),
    dict(type='HierarchyHook'),
]
