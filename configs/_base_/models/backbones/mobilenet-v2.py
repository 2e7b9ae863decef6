# ImageNet MobileNetV2 of mmpretrain, frozen: its two stride-16 maps (64 and 96 channels) side by side. Mean and
# standard deviation belong to the weights: change them together.
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
        backbone=dict(type='mmpretrain.MobileNetV2', widen_factor=1.0, out_indices=(3, 4)),
        out_indices=(0, 1),
        checkpoint='https://download.openmmlab.com/mmclassification/v0/mobilenet_v2/'
        'mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth',
    ),
)
