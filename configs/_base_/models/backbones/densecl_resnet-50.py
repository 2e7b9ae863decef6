# DenseCL ResNet-50 of mmpretrain, frozen; everything else as for ResNet-50. For the authors' files set
# key_converter='densecl'.
_base_ = ['./resnet-50.py']
model = dict(
    backbone=dict(
        checkpoint='https://download.openmmlab.com/mmselfsup/1.x/densecl/densecl_resnet50_8xb32-coslr-200e_in1k/'
        'densecl_resnet50_8xb32-coslr-200e_in1k_20220825-3078723b.pth',
    ),
)
