# On the demo scenes, whose run is short: our choice for these scenes, by seeds 0 to 2 of STEGO. Centres that move
# steadily, and a small share.
_base_ = ['./omh.py']
omh_head = dict(centre_update='momentum', match_weight=0.1, start_iteration=100, direction='both')
