# PriMaPs-EM on the demo scenes with the shipped ViT; its parts: docs/methods/primaps.md 2 to 5.
_base_ = [
    './_base_/models/backbones/vit-t8_demo.py',
    './_base_/datasets/demo.py',
    './_base_/schedules/primaps.py',
    './_base_/default_runtime.py',
]
# The numbers: docs/methods/primaps.md 5.3.
model = dict(
    type='PriMaPs',
    num_classes=6,
    decode_head=dict(type='IdentityHead'),
    cluster_probe=dict(type='MomentumPrototypes', decay=0.98, interval=10),
    linear_probe=dict(type='LinearProbe', over_all=True),
    prototype_loss=dict(type='ClassFrequencyLoss', gamma=2.0),
    proposals=dict(type='MaskProposals', threshold=0.4, crf=dict()),
    test_cfg=dict(mode='whole'),
)
# Batch and steps: our choice.
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_iters=300, val_interval=300)
