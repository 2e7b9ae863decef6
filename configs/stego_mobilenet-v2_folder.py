# STEGO on a folder of images with MobileNetV2; its parts: docs/methods/features.md 2.1, 2.4.
_base_ = [
    './_base_/models/backbones/mobilenet-v2.py',
    './_base_/datasets/folder_pairs.py',
    './_base_/schedules/stego.py',
    './_base_/default_runtime.py',
]
model = dict(
    type='STEGO',
    num_classes={{'$OMH_NUM_CLASSES:11'}},
    # docs/methods/features.md 2.3, the default of the authors' config file.
    decode_head=dict(type='ProjectionHead', channels=70),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    # docs/methods/stego.md 4.2, row "Cocostuff27 vit small 1/31/22", as for ViT-S/8 on COCO-Stuff-27.
    correlation_loss=dict(
        type='STEGOCorrelationLoss',
        self_weight=0.67,
        self_shift=0.08,
        knn_weight=0.25,
        knn_shift=0.02,
        rand_weight=0.63,
        rand_shift=0.66,
    ),
    test_cfg=dict(mode='whole'),
)
# Batch and steps: our choice.
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        index='data/neighbours/folder_{fingerprint}.npz',
        # docs/methods/stego.md 4.1; the index may hold more.
        num_neighbours=7,
    ),
)
# After docs/study/README.md, The length of a training; 500 take a sixth of the time.
train_cfg = dict(max_iters=3000, val_interval=3000)
# Our choice for photos, after docs/study/README.md; no part of the host: 'none' leaves the clusters as trained.
default_hooks = dict(closing_refit=dict(clusterings='all', leave_apart=True))
