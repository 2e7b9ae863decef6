# COCO-Stuff with 27 classes, the protocol of PriMaPs (docs/methods/primaps.md 6): no five-crop, images at 320 in
# training too, resized by bilinear interpolation; trained on the images of the short list; everything else as in
# coco-stuff27.py. Pillow's bilinear smooths where it makes smaller, also in the validation, where the reference's
# does not.
_base_ = ['./coco-stuff27.py']
train_list = 'Coco164kFull_Stuff_Coarse_7.txt'

__load = dict(
    type='LoadImageFromFile', _scope_='omh_mmseg', value_range={{_base_.value_range}}, bands={{_base_.bands}},
    max_pixels={{_base_.max_pixels}},
)  # fmt: skip
__meta_keys = (
    'img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip', 'flip_direction',
    'reduce_zero_label', 'crop_bbox',
)  # fmt: skip
test_pipeline = [
    __load,
    dict(type='LoadOptionalAnnotations'),
    dict(type='ResizeShortSide', size=320, interpolation='bilinear'),
    dict(type='CentreCrop', size=320),
    dict(type='PackSegInputs', meta_keys=__meta_keys),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='COCOStuff27',
        data_root={{_base_.data_root}},
        layout={{_base_.layout}},
        split='train2017',
        ann_file=train_list,
        pipeline=test_pipeline,
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
tta_pipeline = [
    __load,
    dict(type='LoadOptionalAnnotations'),
    dict(type='ResizeShortSide', size=320, interpolation='bilinear'),
    dict(type='CentreCrop', size=320),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0, direction='horizontal')],
            [dict(type='PackSegInputs', meta_keys=__meta_keys)],
        ],
    ),
]

# As in coco-stuff27.py.
_copied = dict(train_list=train_list, test_pipeline=test_pipeline)
