# Swin-B as in mmpretrain, frozen; everything else as for Swin-T.
_base_ = ['./swin-t.py']
model = dict(
    backbone=dict(
        backbone=dict(arch='base'),
        checkpoint='https://download.openmmlab.com/mmclassification/v0/swin-transformer/'
        'swin_base_224_b16x64_300e_imagenet_20210616_190742-93230b0d.pth',
    ),
)
