# The small ViT that is shipped with the package, pre-trained without labels on the demo scenes by
# .dev_scripts/pretrain_vit-t8_demo.py.
model = dict(
    data_preprocessor=dict(
        type='ViewsDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=8,
        test_cfg=dict(size_divisor=8),
    ),
    backbone=dict(
        type='FrozenBackbone',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(embed_dims=192, num_layers=4, num_heads=3, feedforward_channels=768),
            img_size=128,
            patch_size=8,
            out_type='featmap',
        ),
        checkpoint='omh_mmseg://vit-t8_demo.pth',
    ),
)
