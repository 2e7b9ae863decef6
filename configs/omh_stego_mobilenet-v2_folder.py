_base_ = ['./stego_mobilenet-v2_folder.py', './_base_/models/omh.py']
# Chosen on CamVid (docs/study).
model = dict(omh_head=dict(_base_.omh_head, match_weight=1.0))
