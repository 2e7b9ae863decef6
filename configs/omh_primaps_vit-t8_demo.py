_base_ = './primaps_vit-t8_demo.py'
# No loss reaches features that are frozen. So OMH hangs its finer levels below the prototypes: level 1 follows them,
# and the centres of the others follow the positions that they win, with the prior of the level above (our choice,
# with the momentum and the beginning of the other hosts here).
model = dict(
    omh_head=dict(
        type='OMHHead',
        centres=dict(type='MomentumCentres', momentum=0.9, prior=1.0),
        match=None,
        reach=dict(begin=100),
    ),
)
