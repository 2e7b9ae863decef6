# OMH on the demo scenes, whose run is short: our choice for these scenes, by seeds 0 to 2 of STEGO. Centres move
# steadily; their momentum and the prior were chosen by the tree that seeds 0 to 9 recover.
omh_head = dict(
    type='OMHHead',
    centres=dict(type='MomentumCentres', momentum=0.9, prior=1.0),
    match=dict(direction='both'),
    reach=dict(begin=100),
)
