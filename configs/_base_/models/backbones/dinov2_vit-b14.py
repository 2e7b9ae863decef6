# DINOv2 ViT-B/14, frozen. Its positional embedding belongs to 518 x 518 pixels and is resized by DINO's rule. Images
# whose sides are no multiples of 14 are resized to the nearest multiples inside the backbone, and never padded.
model = dict(
    data_preprocessor=dict(
        type='ViewsDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=1,
        test_cfg=dict(size_divisor=1),
    ),
    backbone=dict(
        type='FrozenBackbone',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch='base',
            img_size=518,
            patch_size=14,
            layer_scale_init_value=1e-5,
            out_type='featmap',
        ),
        checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth'
        '#sha256=0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73',
        key_converter='dinov2',
        position_interpolation='dino',
        input_fit='resize',
    ),
)
