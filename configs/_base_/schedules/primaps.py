# PriMaPs' training (docs/methods/primaps.md 4, 5.3): the prototypes start at principal directions and two epochs of
# k-means by cosine, before the first step; then one Adam, 5e-3 on prototypes, gains and linear probe, no decay, no
# schedule. The 5e-3 of OMH's centres, where they learn by gradient, is our choice. The experiment adds batch size and
# steps.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainableOptimWrapperConstructor',
    optimizer=dict(type='Adam', lr=5e-3),
)
train_cfg = dict(type='IterBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(type='PrototypeStartHook', batches=93, epochs=2, lr=5e-3),
    dict(type='NonFiniteLossHook'),
    dict(type='HierarchyHook'),
]
