# HP on Cityscapes-27 with DINO ViT-S/8; its parts: docs/methods/features.md 2.1, 2.4 and docs/methods/hp.md 2.5.
_base_ = [
    './_base_/models/backbones/dino_vit-s8.py',
    './_base_/datasets/cityscapes27.py',
    './_base_/schedules/hp.py',
    './_base_/default_runtime.py',
]
# The numbers: docs/methods/hp.md 4.4, Cityscapes-27, whatever the backbone.
model = dict(
    type='HiddenPositives',
    num_classes=27,
    decode_head=dict(type='ProjectionHead', channels=512),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    hidden_positive_loss=dict(
        type='HiddenPositiveLoss',
        temperature=0.6,
        random_negatives=0.02,
        consistency_weight=0.05,
    ),
    pool_size=2048,
    ema_momentum=0.999,
    # Steps before the task-specific positives count.
    warmup=50,
    test_cfg=dict(mode='whole'),
)
# docs/methods/hp.md 4.4: 30 epochs of 232 batches. Validation, which trains nothing, is rarer than the reference's 100.
train_dataloader = dict(batch_size=64, drop_last=True)
train_cfg = dict(max_iters=6960, val_interval=696)
custom_hooks = [
    dict(type='ReferencePoolHook', renew_interval=20),
    dict(type='SubmoduleGradientClipHook', module='decode_head', max_norm=10.0),
    dict(type='NonFiniteLossHook'),
    dict(type='HierarchyHook'),
]
