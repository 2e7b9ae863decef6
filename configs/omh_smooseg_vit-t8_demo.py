_base_ = ['./smooseg_vit-t8_demo.py', './_base_/models/omh.py']
model = dict(omh_head={{_base_.omh_head}})
