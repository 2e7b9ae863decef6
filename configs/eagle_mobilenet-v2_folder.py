# EAGLE on a folder of images with MobileNetV2; its parts: docs/methods/eagle.md 2. A convolutional network has no keys:
# its maps stand for them.
_base_ = [
    './_base_/models/backbones/mobilenet-v2.py',
    './_base_/datasets/folder.py',
    './_base_/schedules/eagle.py',
    './_base_/default_runtime.py',
]
# The numbers: docs/methods/eagle.md 4.5, COCO-Stuff-27, without its extra clusters.
model = dict(
    type='EAGLE',
    num_classes={{'$OMH_NUM_CLASSES:11'}},
    decode_head=dict(type='ProjectionHead', channels=512),
    cluster_probe=dict(type='ClusterProbe'),
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
# Batch and steps: our choice, as STEGO's on a folder.
train_dataloader = dict(batch_size=8)
train_cfg = dict(max_iters=500, val_interval=500)
