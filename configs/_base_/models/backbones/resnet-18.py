# ImageNet ResNet-18 of mmpretrain, frozen; stages 3 and 4 have 256 and 512 channels. Everything else as for ResNet-50.
_base_ = ['./resnet-50.py']
model = dict(
    backbone=dict(
        backbone=dict(depth=18),
        checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/'
        'resnet18_8xb32_in1k_20210831-fbbb1da6.pth',
    ),
)
