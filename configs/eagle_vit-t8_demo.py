# EAGLE on the demo scenes with the shipped ViT; its parts: docs/methods/eagle.md 2.
_base_ = [
    './_base_/models/backbones/vit-t8_demo.py',
    './_base_/datasets/demo.py',
    './_base_/schedules/eagle.py',
    './_base_/default_runtime.py',
]
# The numbers: docs/methods/eagle.md 4.5, COCO-Stuff-27; our choice are fewer channels, no extra clusters, and the step
# of the switch, which is a third of the run here.
model = dict(
    type='EAGLE',
    num_classes=6,
    backbone=dict(feature='keys', out_indices=(-3, -2, -1)),
    decode_head=dict(type='ProjectionHead', channels=128),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    correspondence_loss=dict(
        type='AdaptiveCorrespondenceLoss',
        positive_weight=0.25,
        negative_weight=0.63,
    ),
    object_loss=dict(type='ObjectContrastLoss'),
    eigen_cue=dict(type='EigenCue', num_vectors=4),
    switch_step=100,
    object_share=0.9,
    test_cfg=dict(mode='whole'),
)
# Batch and steps: our choice.
train_dataloader = dict(batch_size=8)
train_cfg = dict(max_iters=300, val_interval=300)
