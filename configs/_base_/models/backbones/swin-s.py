# Swin-S as in mmpretrain, frozen; everything else as for Swin-T.
_base_ = ['./swin-t.py']
model = dict(
    backbone=dict(
        backbone=dict(arch='small'),
        checkpoint='https://download.openmmlab.com/mmclassification/v0/swin-transformer/'
        'swin_small_224_b16x64_300e_imagenet_20210615_110219-7f9d988b.pth',
    ),
)
