# SmooSeg on COCO-Stuff-27 with DINO ViT-B/8; its parts: docs/methods/features.md 2.1, 2.3 and docs/methods/smooseg.md
# 2.6, 3C. There is no linear probe, and so no use of labels in the training; for reports, add one: --cfg-options
# model.linear_probe.type=LinearProbe
_base_ = [
    './_base_/models/backbones/dino_vit-b8.py',
    './_base_/datasets/coco-stuff27.py',
    './_base_/schedules/smooseg.py',
    './_base_/default_runtime.py',
]
model = dict(
    type='SmooSeg',
    num_classes=27,
    decode_head=dict(type='ProjectionHead', channels=64, act_cfg=dict(type='SiLU'), dropout_ratio=0.2),
    cluster_probe=dict(type='PrototypeHead', temperature=0.1, momentum=0.998),
    # docs/methods/smooseg.md 4.5, column COCO-Stuff-27, published for ViT-S/8. For ViT-B/8 none is published: that it
    # takes the same numbers is our choice.
    smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=-0.02, across_shift=0.48),
    test_cfg=dict(mode='whole'),
)
# Batch and steps: docs/methods/smooseg.md 4.5.
train_dataloader = dict(batch_size=32, drop_last=True)
train_cfg = dict(max_iters=8000, val_interval=500)
# Draw on the pixels as they are stored, like the data set.
default_hooks = dict(visualization=dict(backend_args=dict(turned=False)))
