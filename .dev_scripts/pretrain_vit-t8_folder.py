# Pre-training of the small ViT of _base_/models/backbones/vit-t8_demo.py on photos of one's own, without labels: all
# JPEG files below a folder. Everything that is not said here is as for the demo's scenes.
#
#   python .dev_scripts/pretrain_demo_backbone.py .dev_scripts/pretrain_vit-t8_folder.py --data-root /my/photos \
#       --out vit-t8.pth
#
# On a GPU add --cfg-options optim_wrapper.type=AmpOptimWrapper train_dataloader.num_workers=8, on a CPU --bf16 where
# the processor has it. For fewer epochs set train_cfg.max_epochs and param_scheduler.1.end.
_base_ = ['./pretrain_vit-t8_demo.py']
work_dir = 'work_dirs/pretrain_vit-t8_folder'
data_root = '{{$OMH_DATA_ROOT:data/folder}}'
_copied = dict(data_root=data_root)  # see docs/data.md
# No scenes are drawn.
scenes = None

# Photos of a few hundred pixels show their objects larger than the scenes do: larger regions, views of 8 x 8 patches.
__view = [
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.3, 1.0), backend='cv2'),
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
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        data_root=data_root,
        data_prefix='',
        # Labels are PNG files.
        extensions=('.jpg', '.jpeg'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=112, crop_ratio_range=(0.08, 0.35), backend='cv2'),
            dict(type='MultiView', num_views=2, transforms=[__view]),
            dict(type='PackInputs'),
        ],
    ),
)
model = dict(backbone=dict(img_size=64))

train_cfg = dict(max_epochs=200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5, end=200, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=10))
