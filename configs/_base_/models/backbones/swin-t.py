# Swin-T of ImageNet-1k as in mmpretrain, frozen: stages 3 and 4 side by side at stride 16. Sizes are multiples of 32,
# the stride of stage 4. The classifier was trained on the normalised last stage; that of stage 3 has no trained scale.
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
        backbone=dict(
            type='mmpretrain.SwinTransformer',
            arch='tiny',
            img_size=224,
            out_indices=(2, 3),
            pad_small_map=True,
        ),
        out_indices=(0, 1),
        checkpoint='https://download.openmmlab.com/mmclassification/v0/swin-transformer/'
        'swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth',
        allow_missing=['norm2.*'],
    ),
)
