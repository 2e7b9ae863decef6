# DINO ViT-S/8, frozen (docs/methods/features.md 1.1 to 1.7).
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
            arch='deit-small',
            img_size=224,
            patch_size=8,
            out_type='featmap',
        ),
        # The 300-epoch variant, as the hosts use it (docs/methods/features.md 1.1). No SHA-256 of DINO's weights is
        # known here: a download is verified by its length.
        checkpoint='https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_300ep_pretrain/'
        'dino_deitsmall8_300ep_pretrain.pth',
        key_converter='dino',
        position_interpolation='dino',
    ),
)
