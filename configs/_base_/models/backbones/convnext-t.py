# ImageNet ConvNeXt-T of mmpretrain, frozen: stages 3 and 4 (384 and 768 channels) side by side at stride 16. Sizes are
# multiples of 32, the stride of stage 4; the norm of stage 3 has no trained scale.
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
        backbone=dict(type='mmpretrain.ConvNeXt', arch='tiny', out_indices=(2, 3), gap_before_final_norm=False),
        out_indices=(0, 1),
        checkpoint='https://download.openmmlab.com/mmclassification/v0/convnext/'
        'convnext-tiny_32xb128_in1k_20221207-998cf3e9.pth',
        allow_missing=['norm2.*'],
    ),
)
