# Potsdam with 3 classes, the protocol of PriMaPs (docs/methods/primaps.md 6): no five-crop, images at 320 in training
# too, resized by bilinear interpolation; everything else as in potsdam3.py. Pillow's bilinear smooths where it makes
# smaller, also in the validation, where the reference's does not.
_base_ = ['./potsdam3.py']

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
        type='Potsdam3',
        data_root={{_base_.data_root}},
        layout={{_base_.layout}},
        split='train',
        ann_file={{_base_.train_list}},
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

# As in potsdam3.py.
_copied = dict(test_pipeline=test_pipeline)
