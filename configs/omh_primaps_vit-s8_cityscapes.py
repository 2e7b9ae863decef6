_base_ = './primaps_vit-s8_cityscapes.py'
# No loss reaches features that are frozen. So OMH hangs its finer levels below the prototypes: level 1 follows them,
# and the centres of the others follow the positions that they win, with the prior of the level above (our choice).
model = dict(
    omh_head=dict(
        type='OMHHead',
        centres=dict(type='MomentumCentres', prior=1.0),
        match=None,
    ),
)
