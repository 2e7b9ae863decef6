# Potsdam with 3 classes, scored at 224 x 224, the size of SmooSeg's own Potsdam test (docs/methods/evaluation.md 6.2)
# and a multiple of 14; everything else as in potsdam3.py.
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
    dict(type='ResizeShortSide', size=224, interpolation='nearest'),
    dict(type='CentreCrop', size=224),
    dict(type='PackSegInputs', meta_keys=__meta_keys),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
tta_pipeline = [
    __load,
    dict(type='LoadOptionalAnnotations'),
    dict(type='ResizeShortSide', size=224, interpolation='nearest'),
    dict(type='CentreCrop', size=224),
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
