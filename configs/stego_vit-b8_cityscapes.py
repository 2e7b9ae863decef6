# STEGO on Cityscapes-27 with DINO ViT-B/8; its parts: docs/methods/features.md 2.1, 2.4.
_base_ = [
    './_base_/models/backbones/dino_vit-b8.py',
    './_base_/datasets/cityscapes27_pairs.py',
    './_base_/schedules/stego.py',
    './_base_/default_runtime.py',
]
model = dict(
    type='STEGO',
    num_classes=27,
    # docs/methods/stego.md 4.3, the released checkpoint.
    decode_head=dict(type='ProjectionHead', channels=100),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    # docs/methods/stego.md 4.2, row "Cityscapes 10/3", and `pointwise` off: the setting of the released checkpoint
    # (4.3).
    correlation_loss=dict(
        type='STEGOCorrelationLoss',
        self_weight=1.0,
        self_shift=0.45828472207,
        knn_weight=0.577453483136995,
        knn_shift=0.1754346515479633,
        rand_weight=0.9058762625226623,
        rand_shift=0.31361241889448443,
        pointwise=False,
    ),
    test_cfg=dict(mode='whole'),
)
# Batch and steps: docs/methods/stego.md 4.3, the released checkpoint.
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        index='data/neighbours/cityscapes27_{fingerprint}.npz',
        # docs/methods/stego.md 4.1; the index may hold more.
        num_neighbours=7,
    ),
)
train_cfg = dict(max_iters=7000, val_interval=500)
