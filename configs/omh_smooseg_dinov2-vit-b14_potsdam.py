_base_ = ['./smooseg_dinov2-vit-b14_potsdam.py', './_base_/models/omh.py']
model = dict(omh_head={{_base_.omh_head}})
