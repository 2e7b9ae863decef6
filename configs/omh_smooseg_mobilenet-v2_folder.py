_base_ = ['./smooseg_mobilenet-v2_folder.py', './_base_/models/omh.py']
# Chosen on CamVid (docs/study): larger shares harm this host.
model = dict(omh_head=dict(_base_.omh_head, match_weight=0.1))
