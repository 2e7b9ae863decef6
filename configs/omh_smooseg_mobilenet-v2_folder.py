_base_ = ['./smooseg_mobilenet-v2_folder.py', './_base_/models/omh.py']
# A larger share of the gradient harms this host (docs/study).
model = dict(omh_head=dict(_base_.omh_head, match_weight=0.1))
