# SmooSeg's training (docs/methods/smooseg.md 3C.5, 4.5): one Adam, constant learning rates 1e-4 on the head and 5e-4 on
# the prototypes, no decay. The authors train in 16-bit mixed precision: add --amp for that. The 5e-3 of OMH's centres
# and of a linear probe, where one is added, are our choice, as with STEGO. The experiment adds batch size and steps.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainableOptimWrapperConstructor',
    optimizer=dict(type='Adam', lr=1e-4),
    paramwise_cfg=dict(
        custom_keys={
            'cluster_probe': dict(lr_mult=5),
            'linear_probe': dict(lr_mult=50),
            'omh_head': dict(lr_mult=50),
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
