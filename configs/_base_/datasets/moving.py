# Short sequences of drawn scenes in motion, with labels at three levels and known flow, made on first use
# (docs/video.md): level 'group' (6 classes), 'object' (12) or 'part' (24); num_classes must fit the level.
data_root = 'data/moving_scenes'
level = 'group'
num_classes = 6
# How images of more than 8 bits or of more than three bands are read, and up to which size (docs/data.md).
value_range = None
bands = None
max_pixels = 178956970

# Loads as omh_mmseg does, under the name that mmseg's inferencers look for.
__load = dict(
    type='LoadImageFromFile', _scope_='omh_mmseg', value_range=value_range, bands=bands, max_pixels=max_pixels
)

train_dataloader = dict(
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='SeededInfiniteSampler', shuffle=True),
    dataset=dict(
        type='MovingScenes',
        data_root=data_root,
        split='train',
        level=level,
        pipeline=[
            __load,
            dict(type='LoadOptionalAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)

# Scenes are 128 x 128; other images are brought to that height. The label is loaded after the resize, so that the
# scores are those of the full-size label.
test_pipeline = [
    __load,
    dict(type='ResizeShortSide', size=128, interpolation='bilinear', divisor=8),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='MovingScenes', data_root=data_root, split='val', level=level, pipeline=test_pipeline, test_mode=True
    ),
)
test_dataloader = val_dataloader

# For --tta: the codes of the image and of its mirror image are averaged.
tta_pipeline = [
    __load,
    dict(type='ResizeShortSide', size=128, interpolation='bilinear', divisor=8),
    dict(type='LoadOptionalAnnotations'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0, direction='horizontal')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

# What the parts above took over, so that a value set later is told from these (docs/data.md).
_copied = dict(
    data_root=data_root, level=level, num_classes=num_classes, test_pipeline=test_pipeline,
    value_range=value_range, bands=bands, max_pixels=max_pixels,
)  # fmt: skip
