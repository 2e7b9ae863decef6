# DINO ResNet-50, frozen; everything else as for ResNet-50.
_base_ = ['./resnet-50.py']
model = dict(
    backbone=dict(
        # Without a known SHA-256: a download is verified by its length.
        checkpoint='https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth',
        key_converter='torchvision',
    ),
)
