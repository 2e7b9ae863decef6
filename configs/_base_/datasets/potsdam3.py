# Potsdam with 3 classes, the protocol of STEGO (docs/methods/data.md 5.5, 5.6): patches of 200 x 200 enlarged by
# nearest to 224 for the training and to 320 for the scores, no five-crop. The folders below data/ are those of STEGO's
# archive; for mmseg's prepared Potsdam set layout='mmseg', data_root, and no lists.
data_root = '{{$OMH_DATA_ROOT:data/}}'
layout = 'stego'
num_classes = 3
train_list = 'labelled_train.txt'
val_list = 'labelled_test.txt'
# How images of more than 8 bits or of more than three bands are read, and up to which size (docs/data.md).
value_range = None
bands = None
max_pixels = 178956970

# Loads as omh_mmseg does, under the name that mmseg's inferencers look for.
__load = dict(
    type='LoadImageFromFile', _scope_='omh_mmseg', value_range=value_range, bands=bands, max_pixels=max_pixels
)

__meta_keys = (
    'img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip', 'flip_direction',
    'reduce_zero_label', 'crop_bbox',
)  # fmt: skip

train_dataloader = dict(
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='SeededInfiniteSampler', shuffle=True),
    dataset=dict(
        type='Potsdam3',
        data_root=data_root,
        layout=layout,
        split='train',
        ann_file=train_list,
        pipeline=[
            __load,
            dict(type='LoadOptionalAnnotations'),
            dict(type='ResizeShortSide', size=224, interpolation='nearest'),
            dict(type='CentreCrop', size=224),
            dict(type='PackSegInputs', meta_keys=__meta_keys),
        ],
    ),
)

# The label is loaded before the resize: the protocol scores 320 x 320 pixels.
test_pipeline = [
    __load,
    dict(type='LoadOptionalAnnotations'),
    dict(type='ResizeShortSide', size=320, interpolation='nearest'),
    dict(type='CentreCrop', size=320),
    dict(type='PackSegInputs', meta_keys=__meta_keys),
]
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='Potsdam3',
        data_root=data_root,
        layout=layout,
        split='val',
        ann_file=val_list,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

# For --tta: the codes of the image and of its mirror image are averaged.
tta_pipeline = [
    __load,
    dict(type='LoadOptionalAnnotations'),
    dict(type='ResizeShortSide', size=320, interpolation='nearest'),
    dict(type='CentreCrop', size=320),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0, direction='horizontal')],
            [dict(type='PackSegInputs', meta_keys=__meta_keys)],
        ],
    ),
]

# What the parts above took over, so that a value set later is told from these (docs/data.md).
_copied = dict(
    data_root=data_root, layout=layout, num_classes=num_classes, train_list=train_list, val_list=val_list,
    test_pipeline=test_pipeline, value_range=value_range, bands=bands, max_pixels=max_pixels,
)  # fmt: skip
