# EAGLE on Cityscapes-27 with DINO ViT-B/8; its parts: docs/methods/eagle.md 2.
_base_ = [
    './_base_/models/backbones/dino_vit-b8.py',
    './_base_/datasets/cityscapes27.py',
    './_base_/schedules/eagle.py',
    './_base_/default_runtime.py',
]
# The numbers: docs/methods/eagle.md 4.5, Cityscapes-27.
model = dict(
    type='EAGLE',
    num_classes=27,
    backbone=dict(feature='keys', out_indices=(-3, -2, -1)),
    decode_head=dict(type='ProjectionHead', channels=512),
    cluster_probe=dict(type='ClusterProbe', extra_clusters=1),
    linear_probe=dict(type='LinearProbe'),
    correspondence_loss=dict(
        type='AdaptiveCorrespondenceLoss',
        positive_weight=0.18,
        negative_weight=1.0,
        shift_bias=0.11,
        feature_samples=28,
    ),
    object_loss=dict(type='ObjectContrastLoss', smoothing=0.1),
    eigen_cue=dict(type='EigenCue', num_vectors=4),
    switch_step=380,
    object_share=0.7,
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'cluster_probe': dict(lr_mult=6),
            'linear_probe': dict(lr_mult=10),
            'eigen_lookups': dict(lr_mult=1),
        }
    )
)
# docs/methods/eagle.md 4.5. Validation, which trains nothing, is rarer than the reference's 100.
train_dataloader = dict(batch_size=32)
train_cfg = dict(max_iters=6000, val_interval=600)
