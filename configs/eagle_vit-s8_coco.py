# EAGLE on COCO-Stuff-27 with DINO ViT-S/8; its parts: docs/methods/eagle.md 2.
_base_ = [
    './_base_/models/backbones/dino_vit-s8.py',
    './_base_/datasets/coco-stuff27.py',
    './_base_/schedules/eagle.py',
    './_base_/default_runtime.py',
]
# The numbers: docs/methods/eagle.md 4.5, COCO-Stuff-27.
model = dict(
    type='EAGLE',
    num_classes=27,
    backbone=dict(feature='keys', out_indices=(-3, -2, -1)),
    decode_head=dict(type='ProjectionHead', channels=512),
    cluster_probe=dict(type='ClusterProbe', extra_clusters=5),
    linear_probe=dict(type='LinearProbe'),
    correspondence_loss=dict(
        type='AdaptiveCorrespondenceLoss',
        positive_weight=0.25,
        negative_weight=0.63,
    ),
    object_loss=dict(type='ObjectContrastLoss'),
    eigen_cue=dict(type='EigenCue', num_vectors=4),
    switch_step=200,
    object_share=0.9,
    test_cfg=dict(mode='whole'),
)
# docs/methods/eagle.md 4.5: two GPUs with a batch of 32 each; one process alone: train_dataloader.batch_size=64.
# Validation, which trains nothing, is rarer than the reference's 100.
train_dataloader = dict(batch_size=32)
train_cfg = dict(max_iters=10000, val_interval=1000)
# Draw on the pixels as they are stored, like the data set.
default_hooks = dict(visualization=dict(backend_args=dict(turned=False)))
