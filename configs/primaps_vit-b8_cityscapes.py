# PriMaPs-EM on Cityscapes-27 with DINO ViT-B/8; its parts: docs/methods/primaps.md 2 to 5.
_base_ = [
    './_base_/models/backbones/dino_vit-b8.py',
    './_base_/datasets/cityscapes27_320.py',
    './_base_/schedules/primaps.py',
    './_base_/default_runtime.py',
]
# The numbers: docs/methods/primaps.md 5.3, whatever the backbone.
model = dict(
    type='PriMaPs',
    num_classes=27,
    decode_head=dict(type='IdentityHead'),
    cluster_probe=dict(type='MomentumPrototypes', decay=0.98, interval=10),
    linear_probe=dict(type='LinearProbe', over_all=True),
    prototype_loss=dict(type='ClassFrequencyLoss', gamma=2.0),
    proposals=dict(type='MaskProposals', threshold=0.4, crf=dict()),
    test_cfg=dict(mode='whole'),
)
# 50 epochs of 92 batches (docs/methods/primaps.md 5.3).
train_dataloader = dict(batch_size=32, drop_last=True)
train_cfg = dict(max_iters=4600, val_interval=460)
# Features of all images and of their mirror images would take 28 GiB; proposals alone are kept.
default_hooks = dict(feature_cache=dict(fields=['proposals']))
