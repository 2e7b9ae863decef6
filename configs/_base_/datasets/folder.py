# Any folder of images, with or without labels: data sets of type FolderSegDataset, whose docstring shows the layouts.
#
#   OMH_DATA_ROOT=/my/photos OMH_NUM_CLASSES=20 python tools/train.py CONFIG
#   python tools/train.py CONFIG --cfg-options data_root=/my/photos num_classes=20
#
# The second form works with this project's tools. With mmseg's own, use the first, or one key per loader
# (train_dataloader.dataset.dataset.data_root=..., val_dataloader.dataset.data_root=...).
dataset_type = 'FolderSegDataset'
data_root = '{{$OMH_DATA_ROOT:data/folder}}'
num_classes = {{'$OMH_NUM_CLASSES:11'}}

# 4:3, and a multiple of 8, 16 and 20; a multiple of 32 suits Swin better: (256, 352).
train_size = (240, 320)
test_short_side = 240
divisor = 16

meta_keys = (
    'img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip', 'flip_direction',
    'reduce_zero_label', 'crop_bbox',
)  # fmt: skip
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='ResizeToCover', size=train_size, interpolation='bilinear'),
    dict(type='CentreCrop', size=train_size),
    dict(type='PackSegInputs', meta_keys=meta_keys),
]
# The label is loaded after the resize, so that the scores are those of the full-size label.
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='ResizeShortSide', size=test_short_side, interpolation='bilinear', divisor=divisor),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs', meta_keys=meta_keys),
]

# For --tta: the codes of the image and of its mirror image are averaged.
tta_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='ResizeShortSide', size=test_short_side, interpolation='bilinear', divisor=divisor),
    dict(type='LoadOptionalAnnotations'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0, direction='horizontal')],
            [dict(type='PackSegInputs', meta_keys=meta_keys)],
        ],
    ),
]

# The experiment puts it into train_dataloader, in pairs where its host needs them.
train_dataset = dict(
    type=dataset_type,
    data_root=data_root,
    split='train',
    num_classes=num_classes,
    classes_file=None,
    metainfo=None,
    pipeline=train_pipeline,
)
train_dataloader = dict(
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='val',
        num_classes=num_classes,
        classes_file=None,
        metainfo=None,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
