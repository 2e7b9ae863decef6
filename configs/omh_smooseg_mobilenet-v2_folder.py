_base_ = ['./smooseg_mobilenet-v2_folder.py', './_base_/models/omh.py']
model = dict(omh_head={{_base_.omh_head}})
