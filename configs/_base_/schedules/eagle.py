# EAGLE's training (docs/methods/eagle.md 4.5, 5): constant learning rates, no decay; those of COCO-Stuff-27, which the
# configs of Cityscapes-27 change. OMH's centres learn at STEGO's rate of the cluster probe, our choice. The experiment
# adds batch size and steps, which count batches (docs/methods/eagle.md 9.9).
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainableOptimWrapperConstructor',
    optimizer=dict(type='Adam', lr=5e-4),
    paramwise_cfg=dict(
        custom_keys={
            'cluster_probe': dict(lr_mult=10),
            'linear_probe': dict(lr_mult=2),
            'eigen_lookups': dict(lr_mult=0.1),
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
