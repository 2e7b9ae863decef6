_base_ = ['./stego_vit-t8_demo.py', './_base_/models/omh.py']
# The demo runs 300 steps. Transport from fine to coarse alone empties its finer levels; docs/results.md has the runs.
model = dict(omh_head=dict(_base_.omh_head, match_weight=0.1, start_iteration=100, direction='both'))
