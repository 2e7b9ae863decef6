# SmooSeg on a folder of images with MobileNetV2; its parts: docs/methods/features.md 2.1, 2.3 and
# docs/methods/smooseg.md 2.6, 3C. There is no linear probe, and so no use of labels in the training; for reports, add
# one: --cfg-options model.linear_probe.type=LinearProbe
_base_ = [
    './_base_/models/backbones/mobilenet-v2.py',
    './_base_/datasets/folder.py',
    './_base_/schedules/smooseg.py',
    './_base_/default_runtime.py',
]
model = dict(
    type='SmooSeg',
    num_classes={{'$OMH_NUM_CLASSES:11'}},
    decode_head=dict(type='ProjectionHead', channels=64, act_cfg=dict(type='SiLU'), dropout_ratio=0.2),
    cluster_probe=dict(type='PrototypeHead', temperature=0.1, momentum=0.998),
    # docs/methods/smooseg.md 4.5, column COCO-Stuff-27.
    smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=-0.02, across_shift=0.48),
    test_cfg=dict(mode='whole'),
)
# Batch and steps: our choice.
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_iters=500, val_interval=500)
# Our choice for photos, after docs/study/README.md; no part of the host: 'none' leaves the clusters as trained.
default_hooks = dict(closing_refit=dict(clusterings='all', leave_apart=True))
