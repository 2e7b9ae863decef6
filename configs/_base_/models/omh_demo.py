# On the demo scenes, whose run is short: our choice for these scenes, by seeds 0 to 2 of STEGO. Centres move steadily;
# their momentum and the prior were chosen by the tree that seeds 0 to 9 recover.
_base_ = ['./omh.py']
omh_head = dict(centre_update='momentum', centre_momentum=0.9, prior_weight=1.0, start_iteration=100, direction='both')
