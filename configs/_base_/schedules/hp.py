# HP's training (METHODS.md 3B.10, 4.4): constant learning rates; the decay, also of biases, and the clipping on the
# segmentation net alone. Without decay AdamW is Adam. OMH's centres learn like the cluster probe. Steps and renewals
# are in the file of the data set.
batch_size = 64
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainableOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.1),
    paramwise_cfg=dict(
        custom_keys={
            'project_head': dict(decay_mult=0),
            'linear_probe': dict(lr_mult=2, decay_mult=0),
            'cluster_probe': dict(lr_mult=10, decay_mult=0),
            'omh_head': dict(lr_mult=10, decay_mult=0),
        }
    ),
)
train_cfg = dict(type='IterBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
hp_hooks = [
    dict(type='RandomStateHook'),
    dict(type='SubmoduleGradientClipHook', module='decode_head', max_norm=10.0),
    dict(type='NonFiniteLossHook'),
    dict(type='HierarchyHook'),
]
