_base_ = './smooseg_vit-t8_moving.py'
# As on the scenes that stand still, whose tree chose momentum and prior (docs/study/README.md).
model = dict(
    omh_head=dict(
        type='OMHHead',
        centres=dict(type='MomentumCentres', momentum=0.9, prior=1.0),
        match=dict(direction='both'),
        reach=dict(begin=100),
    )
)
