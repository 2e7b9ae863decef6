# HP on Potsdam-3 with DINO ViT-B/8; its parts: docs/methods/features.md 2.1, 2.4 and docs/methods/hp.md 2.5.
_base_ = [
    './_base_/models/backbones/dino_vit-b8.py',
    './_base_/datasets/potsdam3.py',
    './_base_/schedules/hp.py',
    './_base_/default_runtime.py',
]
# The numbers: docs/methods/hp.md 4.4, Potsdam-3, whatever the backbone. All patches are negatives, and there is no
# second view.
model = dict(
    type='HiddenPositives',
    num_classes=3,
    decode_head=dict(type='ProjectionHead', channels=256),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    hidden_positive_loss=dict(
        type='HiddenPositiveLoss',
        temperature=0.4,
        random_negatives=1.0,
        consistency_weight=0.0,
    ),
    pool_size=1024,
    ema_momentum=0.999,
    # Steps before the task-specific positives count.
    warmup=100,
    test_cfg=dict(mode='whole'),
)
# docs/methods/hp.md 4.4: 10 epochs of 71 batches. Validation, which trains nothing, is rarer than the reference's 50.
train_dataloader = dict(batch_size=64, drop_last=True)
train_cfg = dict(max_iters=710, val_interval=142)
custom_hooks = [
    dict(type='ReferencePoolHook', renew_interval=20),
    dict(type='SubmoduleGradientClipHook', module='decode_head', max_norm=10.0),
    dict(type='NonFiniteLossHook'),
    dict(type='HierarchyHook'),
]
