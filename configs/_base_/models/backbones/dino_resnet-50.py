# DINO ResNet-50, frozen; everything else as for ResNet-50.
_base_ = ['./resnet-50.py']
model = dict(
    backbone=dict(
        checkpoint='https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth',
        key_converter='torchvision',
    ),
)
