# MoCo v2 ResNet-50 of the authors (800 epochs), frozen; everything else as for ResNet-50.
_base_ = ['./resnet-50.py']
model = dict(
    backbone=dict(
        # Without a known SHA-256: a download is verified by its length.
        checkpoint='https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar',
        key_converter='moco',
    ),
)
