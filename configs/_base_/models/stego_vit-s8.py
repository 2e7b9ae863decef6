# STEGO on DINO ViT-S/8. Architecture: METHODS.md 1.1, 2.1. Weights and shifts of the losses depend on the data set and
# stand in the experiment's schedule file.
model = dict(
    type='STEGO',
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
        # The 300-epoch variant, as the hosts use it (METHODS.md 1.1).
        checkpoint='https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_300ep_pretrain/'
        'dino_deitsmall8_300ep_pretrain.pth',
        key_converter='dino',
    ),
    decode_head=dict(type='ProjectionHead', channels=70),
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    test_cfg=dict(mode='whole'),
)
