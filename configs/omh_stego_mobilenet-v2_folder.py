_base_ = ['./stego_mobilenet-v2_folder.py', './_base_/models/omh.py']
model = dict(omh_head={{_base_.omh_head}})
