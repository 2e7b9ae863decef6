# STEGO's training (METHODS.md 3A.6): constant learning rates 5e-4 on the head and 5e-3 on the probes, no decay.
# OMH's centres learn like the cluster probe. Steps count batches (METHODS.md 8, item 3). Batch and steps: the authors'
# config file (4.1) and, for Potsdam, the released checkpoint (4.3).
batch_size = 16
# METHODS.md 4.1; the index may hold more.
num_neighbours = 7
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
train_cfg = dict(type='IterBasedTrainLoop', max_iters=5000, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
custom_hooks = [
    dict(type='NeighbourIndexCheckHook'),
    dict(type='NonFiniteLossHook'),
    dict(type='HierarchyHook'),
]
