# ViT-B/16 of ImageNet-21k, fine-tuned on ImageNet-1k at 384 pixels, as mmpretrain publishes it, frozen.
# Mean and standard deviation are its own.
model = dict(
    data_preprocessor=dict(
        type='ViewsDataPreprocessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        size_divisor=16,
        test_cfg=dict(size_divisor=16),
    ),
    backbone=dict(
        type='FrozenBackbone',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch='base',
            img_size=384,
            patch_size=16,
            out_type='featmap',
        ),
        checkpoint='https://download.openmmlab.com/mmclassification/v0/vit/finetune/'
        'vit-base-p16_in21k-pre-3rdparty_ft-64xb64_in1k-384_20210928-98e8652b.pth',
    ),
)
