_base_ = ['./smooseg_vit-t8_demo.py', './_base_/models/omh.py']
# As with STEGO on these scenes: the run is short, and transport from fine to coarse alone empties the finer levels.
model = dict(omh_head=dict(_base_.omh_head, match_weight=0.1, start_iteration=100, direction='both'))
