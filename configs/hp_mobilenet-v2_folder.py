# HP on a folder of images with MobileNetV2; its parts: docs/methods/features.md 2.1, 2.4 and docs/methods/hp.md 2.5.
_base_ = [
    './_base_/models/backbones/mobilenet-v2.py',
    './_base_/datasets/folder.py',
    './_base_/schedules/hp.py',
    './_base_/default_runtime.py',
]
# The numbers: docs/methods/hp.md 4.4, Cityscapes-27.
model = dict(
    type='HiddenPositives',
    num_classes={{'$OMH_NUM_CLASSES:11'}},
    decode_head=dict(type='ProjectionHead', channels=512),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    hidden_positive_loss=dict(
        type='HiddenPositiveLoss',
        temperature=0.6,
        random_negatives=0.02,
        consistency_weight=0.05,
    ),
    # At most the number of training images.
    pool_size=128,
    ema_momentum=0.999,
    # Steps before the task-specific positives count.
    warmup=50,
    # A convolutional network has no attention.
    local_affinity='features',
    test_cfg=dict(mode='whole'),
)
# Our choice: a step compares with a view of its own, so that they are few; the pools are renewed as often as on
# Cityscapes (docs/methods/hp.md 4.4).
train_dataloader = dict(batch_size=8)
train_cfg = dict(max_iters=500, val_interval=500)
# Our choice for photos, after docs/study/README.md; no part of the host: 'none' leaves the clusters as trained.
default_hooks = dict(closing_refit=dict(clusterings='all', leave_apart=True))
custom_hooks = [
    dict(type='ReferencePoolHook', renew_interval=20),
    dict(type='SubmoduleGradientClipHook', module='decode_head', max_norm=10.0),
    dict(type='NonFiniteLossHook'),
    dict(type='HierarchyHook'),
]
