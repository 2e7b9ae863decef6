# Swin-T of ImageNet-1k as in mmseg, frozen, with the authors' weights; stages 3 and 4 side by side at stride 16. Sizes
# are multiples of 32, the stride of stage 4; the norm of stage 3 has no trained scale.
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
            type='SwinTransformer',
            embed_dims=96,
            depths=(2, 2, 6, 2),
            num_heads=(3, 6, 12, 24),
            window_size=7,
            out_indices=(2, 3),
        ),
        out_indices=(0, 1),
        # Without a known SHA-256: a download is verified by its length.
        checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
        'swin_tiny_patch4_window7_224.pth',
        key_converter='swin',
        allow_missing=['norm2.*'],
    ),
)
