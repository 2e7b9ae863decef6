_base_ = ['./hp_vit-b8_potsdam.py', './_base_/models/omh.py']
model = dict(omh_head={{_base_.omh_head}})
