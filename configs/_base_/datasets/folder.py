# Any folder of images, with or without labels: data sets of type FolderSegDataset, whose docstring shows the layouts.
# Set data_root and num_classes in a config of your own, by --cfg-options, or by OMH_DATA_ROOT and OMH_NUM_CLASSES: see
# docs/data.md.
data_root = '{{$OMH_DATA_ROOT:data/folder}}'
num_classes = {{'$OMH_NUM_CLASSES:11'}}
# Lists of images, below data_root; '' for every image of the split. Where a folder has no sub-folders for its splits,
# the lists alone separate training from validation.
train_list = ''
val_list = ''
# What the labels hold where they are no PNG of class numbers, see docs/data.md, Labels in colours.
seg_map_suffix = '.png'
label_map = dict()
label_colours = dict()
reduce_zero_label = False
# What labels of photos with an EXIF orientation were drawn on: 'turned' or 'stored' pixels; 'auto' goes by the size.
label_orientation = 'auto'
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
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='SeededInfiniteSampler', shuffle=True),
    dataset=dict(
        type='FolderSegDataset',
        data_root=data_root,
        split='train',
        num_classes=num_classes,
        ann_file=train_list,
        classes_file=None,
        metainfo=None,
        seg_map_suffix=seg_map_suffix,
        label_map=label_map,
        label_colours=label_colours,
        reduce_zero_label=reduce_zero_label,
        label_orientation=label_orientation,
        # 240 x 320 is 4:3, and a multiple of 8, 16 and 20; a multiple of 32 suits Swin better: (256, 352).
        pipeline=[
            __load,
            dict(type='LoadOptionalAnnotations'),
            dict(type='ResizeToCover', size=(240, 320), interpolation='bilinear'),
            dict(type='CentreCrop', size=(240, 320)),
            dict(type='PackSegInputs', meta_keys=__meta_keys),
        ],
    ),
)

# The label is loaded after the resize, so that the scores are those of the full-size label.
test_pipeline = [
    __load,
    dict(type='ResizeShortSide', size=240, interpolation='bilinear', divisor=16),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs', meta_keys=__meta_keys),
]
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='FolderSegDataset',
        data_root=data_root,
        split='val',
        num_classes=num_classes,
        ann_file=val_list,
        classes_file=None,
        metainfo=None,
        seg_map_suffix=seg_map_suffix,
        label_map=label_map,
        label_colours=label_colours,
        reduce_zero_label=reduce_zero_label,
        label_orientation=label_orientation,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

# For --tta: the codes of the image and of its mirror image are averaged.
tta_pipeline = [
    __load,
    dict(type='ResizeShortSide', size=240, interpolation='bilinear', divisor=16),
    dict(type='LoadOptionalAnnotations'),
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
    num_classes=num_classes,
    train_list=train_list,
    val_list=val_list,
    seg_map_suffix=seg_map_suffix,
    label_map=label_map,
    label_colours=label_colours,
    reduce_zero_label=reduce_zero_label,
    label_orientation=label_orientation,
    value_range=value_range,
    bands=bands,
    max_pixels=max_pixels,
    test_pipeline=test_pipeline,
)
