# HP on the demo scenes with the shipped ViT; its parts: docs/methods/features.md 2.1, 2.4 and docs/methods/hp.md 2.5.
_base_ = [
    './_base_/models/backbones/vit-t8_demo.py',
    './_base_/datasets/demo.py',
    './_base_/schedules/hp.py',
    './_base_/default_runtime.py',
]
# The numbers: our choice, after docs/methods/hp.md 4.4, Cityscapes-27: a faster average for few steps, fewer channels.
model = dict(
    type='HiddenPositives',
    num_classes=6,
    decode_head=dict(type='ProjectionHead', channels=128),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    hidden_positive_loss=dict(
        type='HiddenPositiveLoss',
        temperature=0.6,
        random_negatives=0.02,
        consistency_weight=0.05,
    ),
    # At most the number of training scenes.
    pool_size=256,
    ema_momentum=0.99,
    # Steps before the task-specific positives count.
    warmup=50,
    test_cfg=dict(mode='whole'),
)
# Our choice; the pools are renewed after half of the 40-step epochs.
train_dataloader = dict(batch_size=8)
train_cfg = dict(max_iters=300, val_interval=300)
custom_hooks = [
    dict(type='ReferencePoolHook', renew_interval=20),
    dict(type='SubmoduleGradientClipHook', module='decode_head', max_norm=10.0),
    dict(type='NonFiniteLossHook'),
    dict(type='HierarchyHook'),
]
