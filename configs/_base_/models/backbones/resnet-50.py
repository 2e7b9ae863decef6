# ImageNet ResNet-50 of mmpretrain, frozen: stages 3 and 4 (1024 and 2048 channels) side by side at stride 16. Sizes are
# multiples of 32, the stride of stage 4.
model = dict(
    data_preprocessor=dict(
        type='ViewsDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=32,
        test_cfg=dict(size_divisor=32),
    ),
    backbone=dict(
        type='FrozenBackbone',
        backbone=dict(type='mmpretrain.ResNet', depth=50, out_indices=(2, 3)),
        out_indices=(0, 1),
        checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/'
        'resnet50_8xb32_in1k_20210831-ea4938fc.pth',
    ),
)
