# Potsdam with 3 classes, the protocol of STEGO (docs/methods/data.md 5.5, 5.6): patches of 200 x 200 enlarged by
# nearest to 224 for the training and to 320 for the scores, no five-crop. The folders below data/ are those of STEGO's
# archive; for mmseg's prepared Potsdam set layout='mmseg', data_root, and no lists. The back end mat_image reads .mat
# patches, and any other image as usual; SegVisualizationHook needs it too, which the experiment says.
data_root = '{{$OMH_DATA_ROOT:data/}}'
layout = 'stego'
num_classes = 3
train_list = 'labelled_train.txt'
val_list = 'labelled_test.txt'

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
            dict(type='LoadImageFromFile', imdecode_backend='pillow', backend_args=dict(backend='mat_image')),
            dict(type='LoadOptionalAnnotations'),
            dict(type='ResizeShortSide', size=224, interpolation='nearest'),
            dict(type='CentreCrop', size=224),
            dict(type='PackSegInputs', meta_keys=__meta_keys),
        ],
    ),
)

# The label is loaded before the resize: the protocol scores 320 x 320 pixels.
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow', backend_args=dict(backend='mat_image')),
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
    dict(type='LoadImageFromFile', imdecode_backend='pillow', backend_args=dict(backend='mat_image')),
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
    data_root=data_root,
    layout=layout,
    num_classes=num_classes,
    train_list=train_list,
    val_list=val_list,
    test_pipeline=test_pipeline,
)
