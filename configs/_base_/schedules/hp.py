# HP's training (docs/methods/hp.md 3B.10, 4.4): constant learning rates; the decay, also of biases, and the clipping on
# the segmentation net alone. Without decay AdamW is Adam. OMH's centres learn like the cluster probe. The experiment
# adds batch size, steps and custom_hooks, which renew the pools and clip.
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
