# MoCo v3 ViT-S/16 (12 heads) of mmpretrain, frozen. For the authors' checkpoints set key_converter='moco'.
model = dict(
    data_preprocessor=dict(
        type='ViewsDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=16,
        test_cfg=dict(size_divisor=16),
    ),
    backbone=dict(
        type='FrozenBackbone',
        backbone=dict(
            type='mmpretrain.MoCoV3ViT',
            arch='mocov3-small',
            img_size=224,
            patch_size=16,
            out_type='featmap',
        ),
        checkpoint='https://download.openmmlab.com/mmselfsup/1.x/mocov3/'
        'mocov3_vit-small-p16_16xb256-amp-coslr-300e_in1k/'
        'mocov3_vit-small-p16_16xb256-amp-coslr-300e_in1k-224_20220826-08bc52f7.pth',
    ),
)
