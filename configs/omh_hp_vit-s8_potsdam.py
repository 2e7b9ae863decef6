_base_ = ['./hp_vit-s8_potsdam.py', './_base_/models/omh.py']
model = dict(omh_head={{_base_.omh_head}})
