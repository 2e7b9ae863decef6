# Any model of timm by its name, here DINO ViT-S/8, frozen; needs the extra timm. The weights come with pretrained=True,
# or from a file: pretrained=False, checkpoint='/path/to/file', key_converter='timm'. A transformer gives its normalised
# patch tokens; dynamic_img_size=True lets it take other sizes than its own. Networks with stages take
# features_only=True and out_indices. timm downloads and checks pretrained weights itself.
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
            type='mmpretrain.TIMMBackbone',
            model_name='vit_small_patch8_224.dino',
            pretrained=True,
            dynamic_img_size=True,
        ),
    ),
)
