# HP on COCO-Stuff-27 with DINO ViT-B/8; its parts: docs/methods/features.md 2.1, 2.4 and docs/methods/hp.md 2.5.
_base_ = [
    './_base_/models/backbones/dino_vit-b8.py',
    './_base_/datasets/coco-stuff27.py',
    './_base_/schedules/hp.py',
    './_base_/default_runtime.py',
]
# The numbers: docs/methods/hp.md 4.4, COCO-Stuff-27, whatever the backbone.
model = dict(
    type='HiddenPositives',
    num_classes=27,
    decode_head=dict(type='ProjectionHead', channels=512),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    hidden_positive_loss=dict(
        type='HiddenPositiveLoss',
        temperature=0.8,
        random_negatives=0.02,
        consistency_weight=0.05,
    ),
    pool_size=2048,
    ema_momentum=0.99,
    # Steps before the task-specific positives count.
    warmup=1000,
    test_cfg=dict(mode='whole'),
)
# docs/methods/hp.md 4.4: 3 epochs of 7632 batches. Validation, which trains nothing, is rarer than the reference's 100.
train_dataloader = dict(batch_size=64, drop_last=True)
train_cfg = dict(max_iters=22896, val_interval=2000)
custom_hooks = [
    dict(type='ReferencePoolHook', renew_interval=100),
    dict(type='SubmoduleGradientClipHook', module='decode_head', max_norm=10.0),
    dict(type='NonFiniteLossHook'),
    dict(type='HierarchyHook'),
]
# Draw on the pixels as they are stored, like the data set.
default_hooks = dict(visualization=dict(backend_args=dict(turned=False)))
