# STEGO on COCO-Stuff-27 with DINO ViT-S/8; its parts: docs/methods/features.md 2.1, 2.4.
_base_ = [
    './_base_/models/backbones/dino_vit-s8.py',
    './_base_/datasets/coco-stuff27_pairs.py',
    './_base_/schedules/stego.py',
    './_base_/default_runtime.py',
]
model = dict(
    type='STEGO',
    num_classes=27,
    # docs/methods/features.md 2.3, the default of the authors' config file.
    decode_head=dict(type='ProjectionHead', channels=70),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    # docs/methods/stego.md 4.2, row "Cocostuff27 vit small 1/31/22": the setting that reproduces COCO-Stuff-27 with
    # ViT-S/8 (4.3).
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
# Batch and steps: docs/methods/stego.md 4.1, the authors' config file.
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        index='data/neighbours/coco-stuff27_{fingerprint}.npz',
        # docs/methods/stego.md 4.1; the index may hold more.
        num_neighbours=7,
    ),
)
train_cfg = dict(max_iters=5000, val_interval=500)
# Draw on the pixels as they are stored, like the data set.
default_hooks = dict(visualization=dict(backend_args=dict(turned=False)))
