# Pre-training of the demo backbone without labels: MoCo v3 (arXiv 2104.02057) on small regions of drawn scenes.
custom_imports = dict(
    imports=['omh_mmseg', 'mmpretrain.datasets', 'mmpretrain.engine', 'mmpretrain.models'], allow_failed_imports=False
)
default_scope = 'mmpretrain'
randomness = dict(seed=0)
work_dir = 'work_dirs/pretrain_vit-t8_demo'

# The demo's 320 training images and 680 more of their kind; none of the val split.
data_root = 'data/demo_pretraining'
_copied = dict(data_root=data_root)  # see docs/data.md
scenes = dict(seed=2026, counts=dict(train=1000))
export_grid = 16  # patches per side of a demo scene

# Both views lie in one region of 30 to 57 pixels, so that they mostly show the same objects at their own scale.
__view = [
    dict(type='RandomResizedCrop', scale=40, crop_ratio_range=(0.4, 1.0), backend='cv2'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomApply',
        transforms=[dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05)],
        prob=0.8,
    ),
    dict(type='RandomGrayscale', prob=0.1, keep_channels=True, channel_weights=(0.114, 0.587, 0.2989)),
    dict(type='GaussianBlur', magnitude_range=(0.1, 1.0), magnitude_std='inf', prob=0.3),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    # Four regions of one image in a batch: light and palette of the image do not tell them apart, content does.
    sampler=dict(type='RepeatAugSampler', num_repeats=4, shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='images/train',
        with_label=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.06, 0.2), backend='cv2'),
            dict(type='MultiView', num_views=2, transforms=[__view]),
            dict(type='PackInputs'),
        ],
    ),
)

__projector = dict(
    type='NonLinearNeck',
    hid_channels=512,
    out_channels=128,
    with_bias=False,
    with_last_bn=True,
    with_last_bn_affine=False,
    with_last_bias=False,
)
model = dict(
    type='MoCoV3',
    base_momentum=0.01,
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
    ),
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=192, num_layers=4, num_heads=3, feedforward_channels=768),
        img_size=40,
        patch_size=8,
        out_type='featmap',
        norm_cfg=dict(type='LN', eps=1e-6),
    ),
    # The mean of the patch features is contrasted, not the class token: patches are what segmentation needs.
    neck=dict(in_channels=192, num_layers=3, with_avg_pool=True, **__projector),
    head=dict(
        type='MoCoV3Head',
        predictor=dict(in_channels=128, num_layers=2, with_avg_pool=False, **__projector),
        temperature=0.2,
        # Twice the temperature.
        loss=dict(type='CrossEntropyLoss', loss_weight=0.4),
    ),
)

train_cfg = dict(by_epoch=True, max_epochs=34)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05),
    clip_grad=dict(max_norm=3.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=3, end=34, convert_to_iter_based=True),
]
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=4, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
log_processor = dict(window_size=20)
